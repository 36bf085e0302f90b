"""The peers that go over ssh, to an sshd of their own, with throw-away keys; no relay."""

from __future__ import annotations

import os
import pwd
import socket
from abc import abstractmethod
from pathlib import Path

from tests.bench.peers import Peer
from tests.bench.processes import READY, Child, Failed, Stage, said_by, tool


class OverSsh(Peer):
    """A program that starts ssh, or is it. sshd is started for the one connection."""

    SERVER = """\
HostKey {folder}/host
AuthorizedKeysFile {folder}/user.pub
PermitRootLogin prohibit-password
PasswordAuthentication no
StrictModes no
Subsystem sftp internal-sftp
"""
    CLIENT = """\
Port {port}
IdentityFile {folder}/user
IdentitiesOnly yes
IdentityAgent none
BatchMode yes
UserKnownHostsFile {known}
StrictHostKeyChecking yes
"""

    def version(self) -> str:
        for key in ("host", "user"):
            said_by(tool("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-f", self.folder / key)
        (self.folder / "sshd_config").write_text(self.SERVER.format(folder=self.folder), "utf-8")
        said_by(tool("sshd"), "-t", "-f", self.folder / "sshd_config")
        return said_by(tool("ssh"), "-V").split(",")[0].split()[0]

    @abstractmethod
    def command(self, source: Path, target: str, config: Path) -> tuple[str | Path, ...]:
        """What sends ``source`` into the folder ``target``, with ssh as ``config`` says."""

    def run(self, stage: Stage) -> tuple[Child, float | None]:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            host = (self.folder / "host.pub").read_text("ascii")
            (stage.folder / "known").write_text(f"[127.0.0.1]:{port} {host}", "ascii")
            config = stage.folder / "ssh_config"
            config.write_text(self.CLIENT.format(port=port, folder=self.folder, known=stage.folder / "known"), "utf-8")
            target = f"{pwd.getpwuid(os.getuid()).pw_name}@127.0.0.1:{stage.into}/"
            sender = stage.start("sender", *self.command(stage.source, target, config))
            server.settimeout(READY)
            try:
                peer, _ = server.accept()
            except TimeoutError as error:
                raise Failed(f"{sender.program} did not connect") from error
        with peer:
            sshd = (tool("sshd"), "-i", "-e", "-f", self.folder / "sshd_config")
            receiver = stage.start("receiver", *sshd, stdin=peer.fileno())
        stage.exits(sender)
        try:
            stage.exits(receiver, READY)
        except Failed:
            if receiver.popen.returncode != 255:  # what sshd ends with when the client has gone first
                raise
        return sender, None


class Scp(OverSsh):
    name = "scp, no relay"

    def version(self) -> str:
        tool("scp")
        return super().version()

    def command(self, source: Path, target: str, config: Path) -> tuple[str | Path, ...]:
        recursive = ("-r",) if source.is_dir() else ()
        return tool("scp"), "-q", *recursive, "-F", config, source, target


class Rsync(OverSsh):
    name = "rsync -a over ssh, no relay"

    def version(self) -> str:
        found = said_by(tool("rsync"), "--version").split()[2]
        return f"{found}, {super().version()}"

    def command(self, source: Path, target: str, config: Path) -> tuple[str | Path, ...]:
        rsync = tool("rsync")
        return rsync, "-a", "-e", f"'{tool('ssh')}' -F '{config}'", f"--rsync-path={rsync}", source, target
