"""The admin site: the console's own pages, people and their roles, and the audit log."""

from __future__ import annotations

from typing import Any

from django.contrib.admin import AdminSite, ModelAdmin
from django.contrib.auth.admin import UserAdmin
from django.contrib.auth.forms import AuthenticationForm
from django.contrib.auth.models import User
from django.urls import path, reverse
from typing_extensions import override

from ecommerce_worker.console import views
from ecommerce_worker.ledger.models import Audit


class Console(AdminSite):
    """Anyone with the ``look`` permission may log in."""

    site_header = 'Orders'
    site_title = 'Orders'
    index_title = 'How things stand'
    site_url = None
    enable_nav_sidebar = False
    login_form = AuthenticationForm

    @override
    def has_permission(self, request: Any) -> bool:
        """Whether the user of this request may log in."""
        return bool(request.user.is_active and request.user.has_perm('console.look'))

    @override
    def index(self, request: Any, extra_context: dict[str, Any] | None = None) -> Any:
        """The front page."""
        return views.front(request, {**self.each_context(request), **(extra_context or {})})

    @override
    def each_context(self, request: Any) -> dict[str, Any]:
        """Django's context, and the alarms for those who may see them."""
        context = super().each_context(request)
        if not self.has_permission(request):
            return context
        return {**context, **views.standing(reverse('admin:orders'), reverse('admin:parked'))}

    @override
    def get_urls(self) -> list[Any]:
        """Our pages, then Django's."""
        return [
            path('', self.admin_view(self.index), name='index'),
            path('orders/', self._page(views.orders), name='orders'),
            path('orders/<int:number>/', self._page(views.order), name='order'),
            path('intakes/', self._page(views.intakes), name='intakes'),
            path('parked/', self._page(views.parked), name='parked'),
            path('parked/decide/', self._decide, name='decide'),
            path('parked/<int:number>/', self._page(views.parked_order), name='parked_order'),
            path('parked/<int:number>/body/', self._page(views.body), name='body'),
            *super().get_urls()]

    def _decide(self, request: Any) -> Any:
        """Like the other pages, except that a form posted after the login expired is kept for after the next login."""
        if not request.user.is_authenticated:
            return views.log_in_again(request)
        return self._page(views.decide)(request)

    def _page(self, view: Any) -> Any:
        def page(request: Any, **found: Any) -> Any:
            return view(request, self.each_context(request), **found)

        return self.admin_view(page)


class People(UserAdmin):  # type: ignore[type-arg]  # Django's classes take none
    """People have a name, a password and roles, and nothing else."""

    list_display = ('username', 'roles', 'is_active', 'last_login')
    list_filter = ('groups', 'is_active')
    search_fields = ('username',)
    fieldsets = ((None, {'fields': ('username', 'password', 'is_active', 'groups')}),)
    filter_horizontal = ()

    @staticmethod
    def roles(user: User) -> str:
        """The names of a person's roles."""
        return ', '.join(group.name for group in user.groups.all())


class Decisions(ModelAdmin):  # type: ignore[type-arg]
    """The audit log, read-only."""

    list_display = ('at', 'who', 'action', 'key', 'task', 'reason')
    list_filter = ('action',)
    search_fields = ('key__exact', 'message_id__exact', 'who__exact')
    date_hierarchy = None
    show_full_result_count = False
    list_per_page = 50

    @override
    def has_add_permission(self, request: Any) -> bool:
        return False

    @override
    def has_change_permission(self, request: Any, obj: Any = None) -> bool:
        return False

    @override
    def has_delete_permission(self, request: Any, obj: Any = None) -> bool:
        return False


console = Console(name='admin')
console.register(User, People)
console.register(Audit, Decisions)
