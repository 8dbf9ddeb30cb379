"""``path("api/", include("ollama_bridge.urls"))`` gives chat, health and liveness below it."""

from django.urls import path

from .api.views import ChatView, HealthView, LiveView

app_name = "ollama_bridge"
urlpatterns = [
    path("chat/", ChatView.as_view(), name="chat"),
    path("health/", HealthView.as_view(), name="health"),
    path("health/live/", LiveView.as_view(), name="live"),
]
