"""Types for the settings in force, for mypy: those that ``ecommerce_worker.configuration.base`` gives them."""
# ruff: noqa: INP001 - mypy loads it by its path

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from mypy.errorcodes import ATTR_DEFINED
from mypy.nodes import Var
from mypy.plugin import AttributeContext, Plugin
from mypy.types import AnyType, Instance, Type, TypeOfAny, get_proper_type

SETTINGS: Final = 'ecommerce_worker.settings.values.Settings.'
BASE: Final = 'ecommerce_worker.configuration.base.'
#: What is a container in ``base`` is in force as another, which cannot be changed.
CONTAINERS: Final = ('builtins.list', 'builtins.dict', 'builtins.tuple')


class SettingsPlugin(Plugin):
    """Looks an attribute of ``Settings`` up in ``base``; one that is not there is an error."""

    def get_attribute_hook(self, fullname: str) -> Callable[[AttributeContext], Type] | None:
        """What finds the type of this attribute, if it is a setting."""
        name = fullname.removeprefix(SETTINGS)
        if name == fullname or not name.isupper():
            return None

        def found(context: AttributeContext) -> Type:
            symbol = self.lookup_fully_qualified(BASE + name)
            if symbol is None or not isinstance(symbol.node, Var):
                context.api.fail(f'There is no setting {name}', context.context, code=ATTR_DEFINED)
                return AnyType(TypeOfAny.from_error)
            declared = get_proper_type(symbol.node.type)
            if declared is None or (isinstance(declared, Instance) and declared.type.fullname in CONTAINERS):
                return AnyType(TypeOfAny.explicit)
            return declared

        return found


def plugin(version: str) -> type[Plugin]:  # noqa: ARG001 - for one plugin of many versions
    """What mypy asks for."""
    return SettingsPlugin
