"""The bridge's URLs, as a project includes them."""

from django.urls import include, path

urlpatterns = [path("api/", include("ollama_bridge.urls"))]
