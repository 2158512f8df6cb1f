"""The URLs of the console."""

from __future__ import annotations

from django.contrib.auth.views import PasswordResetConfirmView
from django.urls import path, reverse_lazy

from ecommerce_worker.console.admin import console

urlpatterns = [
    path('invitation/<uidb64>/<token>/', PasswordResetConfirmView.as_view(
        template_name='console/invitation.html', success_url=reverse_lazy('admin:login')), name='invitation'),
    path('', console.urls),
]
