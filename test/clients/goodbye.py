"""alice logs in over c2s with STARTTLS and is sent away: what for is the last thing that she reports.

    python goodbye.py --port PORT --ca FILE
"""

import asyncio

import slixmpp

from report import main, options, report

SECONDS = 30

given = options("port", "ca")


class User(slixmpp.ClientXMPP):
    def __init__(self):
        super().__init__("alice@localhost/goodbye", "alice-pw", sasl_mech="SCRAM-SHA-1")
        self.ca_certs = given.ca
        self.enable_direct_tls = False
        self.enable_plaintext = False
        self.condition = None
        self.gone = asyncio.get_running_loop().create_future()
        self.add_event_handler("session_start", self.came)
        self.add_event_handler("stream_error", self.told)
        self.add_event_handler("disconnected", self.went)

    def came(self, _event):
        self.send_presence()
        report("logged_in", jid=str(self.boundjid))

    def told(self, error):
        self.condition = error["condition"]

    def went(self, _why):
        if not self.gone.done():
            self.gone.set_result(None)


async def goodbye():
    user = User()
    user.connect("127.0.0.1", int(given.port))
    await user.gone
    report("gone", condition=user.condition)
    if user.condition != "system-shutdown":
        raise AssertionError(f"sent away with {user.condition!r}")


main(lambda: asyncio.run(asyncio.wait_for(goodbye(), SECONDS)))
