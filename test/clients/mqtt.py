"""alice and bob exchange messages over MQTT 5, at each quality of service.

    python mqtt.py --port PORT --path ""       TCP, or with a path WebSocket
"""

import queue

import paho.mqtt.client as mqtt

from report import TEXTS, main, options, report

SECONDS = 20
SAID = [*TEXTS, "x" * 260_000, *(f"burst {n}" for n in range(50))]

given = options("port", "path")


class User:
    """One client; what the library's own thread reports becomes a queue to wait on."""

    def __init__(self, name):
        self.name = name
        self.connected, self.subscribed, self.inbox, self.gone = (queue.Queue() for _ in range(4))
        self.client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, f"{name}-client", protocol=mqtt.MQTTv5,
                                  transport="websockets" if given.path else "tcp")
        if given.path:
            self.client.ws_set_options(path=given.path)
        self.client.username_pw_set(f"{name}@localhost", f"{name}-pw")
        self.client.on_connect = lambda c, u, flags, reason, properties: self.connected.put(reason)
        self.client.on_subscribe = lambda c, u, mid, reasons, properties: self.subscribed.put(reasons)
        self.client.on_message = lambda c, u, message: self.inbox.put(message)
        self.client.on_disconnect = lambda c, u, flags, reason, properties: self.gone.put(reason)

    def login(self):
        self.client.connect("127.0.0.1", int(given.port))
        self.client.loop_start()
        reason = self.connected.get(timeout=SECONDS)
        if reason.is_failure:
            raise AssertionError(f"{self.name}: login refused: {reason}")
        self.client.subscribe(f"to/{self.name}", qos=2)
        for reason in self.subscribed.get(timeout=SECONDS):
            if reason.is_failure:
                raise AssertionError(f"{self.name}: subscription refused: {reason}")
        report("logged_in", name=self.name)

    def logout(self):
        self.client.disconnect()
        self.gone.get(timeout=SECONDS)
        self.client.loop_stop()
        report("logged_out", name=self.name)


def exchange(sender, receiver):
    for qos in (0, 1, 2):
        for text in SAID:
            sender.client.publish(f"to/{receiver.name}", text, qos=qos)
        for text in SAID:
            got = receiver.inbox.get(timeout=SECONDS)
            if (got.payload.decode(), got.qos) != (text, qos):
                raise AssertionError(f"expected {text!r} with qos {qos}, got {got.payload!r} with {got.qos}")
        report("delivered", qos=qos, messages=len(SAID), **{"from": sender.name, "to": receiver.name})


def chat():
    alice, bob = User("alice"), User("bob")
    alice.login()
    bob.login()
    exchange(alice, bob)
    exchange(bob, alice)
    alice.logout()
    bob.logout()


main(chat)
