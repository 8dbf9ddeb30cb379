"""The bridge's URLs, as a project includes them, and the admin."""

from django.contrib import admin
from django.urls import include, path

urlpatterns = [
    path("api/", include("ollama_bridge.urls")),
    path("admin/", admin.site.urls),
]
