"""The mentor's chat, beside the bridge's own views of its health."""

from django.urls import path

from ollama_bridge.api.views import HealthView, LiveView

from .views import MentorView

app_name = "mentor"
urlpatterns = [
    path("chat/", MentorView.as_view(), name="chat"),
    path("health/", HealthView.as_view(), name="health"),
    path("health/live/", LiveView.as_view(), name="live"),
]
