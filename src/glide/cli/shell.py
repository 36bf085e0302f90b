"""glide shell"""

from __future__ import annotations

from glide.cli import options


def shell(
    as_: options.As = None,
    into: options.Into = None,
    conflict: options.Conflict = None,
    invisible: options.Invisible = None,
    idle: options.Idle = None,
    ask_timeout: options.AskTimeout = None,
    retry: options.Retry = None,
    relay: options.Relay = None,
    verbose: options.Verbose = None,
) -> None:
    """Send and receive side by side, by commands that are typed: list, push PATH @NAME, reqs, ok @NAME, no @NAME.

    Without a terminal commands are read from standard input as they come, and it ends when all of them have been done.
    """
    from glide.cli import hooks, names
    from glide.cli.conversation import Conversation
    from glide.cli.run import run
    from glide.client.api import connect
    from glide.protocol.messages import Role

    flags = {"as_": as_, "into": into, "conflict": conflict, "invisible": invisible, "relay": relay, "verbose": verbose}
    patience = {"idle": idle, "ask_timeout": ask_timeout, "retry": retry}
    # What the environment may say to other verbs makes no sense here.
    never = {"json": False, "quiet": False, "once": False, "stdout": False}
    with options.verb(**flags, **patience, **never) as (chosen, renderer):
        commands = hooks.commands(chosen)
        conversation = Conversation(chosen)
        asked = names.ask_once(chosen)

        async def verb() -> None:
            async with (
                conversation.console(chosen.home.state / "shell-history", renderer.out) as console,
                # What hooks write would stand in the middle of what is typed.
                hooks.running(
                    commands, conversation.report, heard=not (console.interactive and options.on_terminal())
                ) as report,
                connect(settings=chosen, role=Role.RECEIVE, report=report) as me,
            ):
                names.save(chosen, asked, console.say)
                await conversation.run(me)

        run(verb)
        if conversation.failure is not None:
            raise conversation.failure
