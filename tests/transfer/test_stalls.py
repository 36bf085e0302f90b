"""What a transfer that does not move is said to wait for, and what ends it: silence, slow disks, and people."""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest
import trio
import trio.testing

from glide import events
from glide.client.address import Address
from glide.client.consent import Consent
from glide.client.link import Me
from glide.client.receive import Wishes, _Receiver
from glide.errors import ConnectionLost, Declined, FileError, IntegrityError, Stalled, Stopped
from glide.net.connection import Connection
from glide.net.deadlines import Deadlines
from glide.people.known import Known
from glide.people.policy import Policy
from glide.protocol.endtoend import Abort, Accept, Busy, Done, End, Item, ItemKind, Offer
from glide.protocol.messages import Keepalive
from glide.protocol.states import State
from glide.transfer import assembling, landing, reading, receiving
from glide.transfer.folders import Folder
from glide.transfer.landing import Landing
from glide.transfer.sending import BLOCK
from glide.transfer.storing import Folders
from glide.transfer.taking import Offered
from glide.transfer.terms import Hint, Outcome, Terms, Watch
from tests.transfer.halves import (
    BRISK,
    CONTENT,
    SMALL,
    TRANSFER,
    Place,
    Side,
    Streams,
    all_of,
    answer_of,
    digest,
    ended,
    files,
    gather,
    joined,
    offered,
    open_files,
    receive,
    send,
    socket_pair,
    take_offer,
    transferred,
    until_end,
    while_reading,
)
