"""alice and bob chat over plain XMPP streams: STARTTLS with the certificate verified, then SCRAM.

    python c2s.py --port PORT --ca FILE
"""

import asyncio

import slixmpp

from report import TEXTS, main, options, report

SECONDS = 30
LONG = "ξ0123456789 " * 20_000  # 260,000 bytes of UTF-8, sixteen windows of the link
SAID = [*TEXTS, LONG, *(f"burst {n}" for n in range(50))]

given = options("port", "ca")


class User(slixmpp.ClientXMPP):
    def __init__(self, name, ca=given.ca):
        super().__init__(f"{name}@localhost/slixmpp", f"{name}-pw", sasl_mech="SCRAM-SHA-1")
        self.ca_certs = ca
        self.enable_direct_tls = False
        self.enable_plaintext = False
        self.inbox = asyncio.Queue()
        self.ready = asyncio.get_running_loop().create_future()
        self.add_event_handler("session_start", self.started)
        self.add_event_handler("message", lambda message: self.inbox.put_nowait(message))
        for failure in ("failed_all_auth", "ssl_invalid_chain", "connection_failed", "disconnected"):
            self.add_event_handler(failure, lambda why, failure=failure: self.failed(failure, why))

    def started(self, _event):
        self.send_presence()
        self.ready.set_result(True)

    def failed(self, failure, why):
        if not self.ready.done():
            self.ready.set_exception(RuntimeError(f"{self.requested_jid}: {failure}: {why}"))

    async def login(self):
        self.connect("127.0.0.1", int(given.port))
        await self.ready
        channel = self.transport.get_extra_info("ssl_object")
        report("logged_in", jid=str(self.boundjid), tls=channel.version(), cipher=channel.cipher()[0],
               subject=str(channel.getpeercert()["subjectAltName"]))

    async def logout(self):
        await self.disconnect()
        report("logged_out", jid=str(self.boundjid))


async def exchange(sender, receiver):
    """Everything said must arrive: complete, unchanged and in order."""
    for text in SAID:
        sender.send_message(mto=receiver.boundjid, mbody=text, mtype="chat")
    for text in SAID:
        got = await receiver.inbox.get()
        if (got["body"], got["from"]) != (text, sender.boundjid):
            raise AssertionError(f"expected {text!r} from {sender.boundjid}, got {got}")
    report("delivered", messages=len(SAID), **{"from": str(sender.boundjid), "to": str(receiver.boundjid)})


async def refuse_unknown_authority():
    """That the certificate is looked at shows only where it must fail."""
    user = User("alice", ca=None)
    try:
        await user.login()
    except RuntimeError as error:
        if "CERTIFICATE_VERIFY_FAILED" not in str(error):
            raise
        report("refused", error=str(error))
    else:
        raise AssertionError("a certificate of an unknown authority was accepted")
    await user.disconnect()


async def chat():
    await refuse_unknown_authority()
    alice, bob = User("alice"), User("bob")
    await asyncio.gather(alice.login(), bob.login())
    await exchange(alice, bob)
    await exchange(bob, alice)
    await asyncio.gather(alice.logout(), bob.logout())


main(lambda: asyncio.run(asyncio.wait_for(chat(), SECONDS)))
