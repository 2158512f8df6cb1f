"""The RabbitMQ of the tests: a private node that obeys an operator at once."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable

from ecommerce_worker.testing.rabbitmq import PrivateNode, program_named


def _text(word: str) -> str:
    """A binary in Erlang."""
    escaped = word.replace('\\', '\\\\').replace('"', '\\"')
    return f'<<"{escaped}"/utf8>>'


#: What ``rabbitmqctl`` calls in the node for some of its commands, each with what follows its name.
CALLED: dict[str, Callable[..., str]] = {
    'add_user': lambda name, password:
        f'rabbit_auth_backend_internal:add_user({_text(name)}, {_text(password)}, <<"a test">>)',
    'clear_policy': lambda name: f'rabbit_policy:delete(<<"/">>, {_text(name)}, <<"a test">>)',
    'delete_user': lambda name: f'rabbit_auth_backend_internal:delete_user({_text(name)}, <<"a test">>)',
    'set_disk_free_limit': lambda limit:
        f'rabbit_disk_monitor:set_disk_free_limit({limit if limit.isdecimal() else json.dumps(limit)})',
    'set_vm_memory_high_watermark': lambda fraction:
        f'vm_memory_monitor:set_vm_memory_high_watermark({fraction})',
    'set_permissions': lambda *words:
        f'rabbit_auth_backend_internal:set_permissions({_text(words[-4])}, <<"/">>, '
        f'{", ".join(map(_text, words[-3:]))}, <<"a test">>)',
    'set_policy': lambda name, pattern, definition:
        f'rabbit_policy:parse_set(<<"/">>, {_text(name)}, {_text(pattern)}, {_text(definition)}, 0, <<"all">>, '
        '<<"a test">>)',
}


class Node(PrivateNode):
    """A node whose operator need not wait half a second for each ``rabbitmqctl``, which is an Erlang of its own."""

    def evaluated(self, expression: str) -> str | None:
        """What an expression comes to in the node, as Erlang writes it; RuntimeError if that is an error.

        None where there is no program to ask by.
        """
        if not (program := program_named('erl_call')):
            return None
        environment = self.environment
        done = subprocess.run([program, '-sname', environment['RABBITMQ_NODENAME'], '-e'], input=f'{expression}\n',
                              env=environment, capture_output=True, text=True, timeout=60, check=False)
        if not done.stdout.startswith('{ok, '):
            raise RuntimeError(f'{expression}: {done.stdout}{done.stderr}')
        return done.stdout.strip().removeprefix('{ok, ').removesuffix('}')

    def ctl(self, *args: str, timeout: float = 60) -> str:
        """As `rabbitmqctl`, but at once where that is possible."""
        command, *rest = args
        if command == 'eval':
            said = self.evaluated(rest[0])
        elif command in CALLED:
            said = self.evaluated(f'ok = {CALLED[command](*rest)}.')
        else:
            said = None
        return super().ctl(*args, timeout=timeout) if said is None else said

    def held(self, *queues: str) -> int:
        """How many messages are in these queues, or with who consumes them; AMQP tells of those that are ready only."""
        names = ', '.join(map(_text, queues))
        return int(self.ctl('eval', f"""
            lists:sum([try
                {{ok, Queue}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"/">>, queue, Name)),
                [{{messages, Count}}] = rabbit_amqqueue:info(Queue, [messages]),
                Count
            catch _:_ -> 0
            end || Name <- [{names}]]).
        """))
