"""The page at /, the mentor's API below /api/mentor/, and the admin."""

from django.contrib import admin
from django.urls import include, path

from .page import PageView

urlpatterns = [
    path("", PageView.as_view(), name="page"),
    path("api/mentor/", include("demo_project.mentor.urls")),
    path("admin/", admin.site.urls),
]
