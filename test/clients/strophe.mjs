// Two users chat with strophe.js over BOSH (an http: service) or WebSocket (a ws: service).
//
//   node strophe.mjs --service URL --mode password|anonymous
//
// `password` logs in alice and bob on localhost, `anonymous` two strangers on anon.localhost.
import http from 'node:http';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { webcrypto } from 'node:crypto';
import { main, options, report } from './report.mjs';

globalThis.crypto ??= webcrypto;
// A browser's requests come over connections that are kept alive; so do these.
const { XMLHttpRequest } = createRequire(import.meta.url)('xhr2');
XMLHttpRequest.nodejsSet({ httpAgent: new http.Agent({ keepAlive: true }) });
const { Strophe, $msg, $pres } = await import('strophe.js');
// strophe.js reads a BOSH answer from `responseXML`, which xhr2 does not have.
globalThis.XMLHttpRequest = class extends XMLHttpRequest {
    get responseXML() {
        return this.responseText ? new DOMParser().parseFromString(this.responseText, 'text/xml') : null;
    }
};
Strophe.setLogLevel(Strophe.LogLevel.WARN);

const texts = Object.values(JSON.parse(readFileSync(new URL('texts.json', import.meta.url))));
const LONG = 'ξ0123456789 '.repeat(20_000); // 260,000 bytes of UTF-8, sixteen windows of the link
const BURST = Array.from({ length: 50 }, (_, n) => `burst ${n}`);

const { service, mode } = options(['service', 'mode']);
const [one, two] =
    mode === 'anonymous'
        ? [{ jid: 'anon.localhost' }, { jid: 'anon.localhost' }]
        : [{ jid: 'alice@localhost/strophe', password: 'alice-pw' }, { jid: 'bob@localhost/strophe', password: 'bob-pw' }];

await main(30, async () => {
    const [a, b] = await Promise.all([login(one), login(two)]);
    await exchange(a, b);
    await exchange(b, a);
    await Promise.all([a.logout(), b.logout()]);
});

// A session of one user, its received messages in a queue that can be waited on.
async function login({ jid, password }) {
    const connection = new Strophe.Connection(service);
    const inbox = new Queue();
    const gone = new Queue();
    connection.addHandler(
        (stanza) => {
            inbox.put({ from: stanza.getAttribute('from'), text: stanza.getElementsByTagName('body')[0].textContent });
            return true;
        },
        null, 'message', 'chat');
    await new Promise((resolve, reject) => {
        connection.connect(jid, password, (status, condition) => {
            if (status === Strophe.Status.CONNECTED) resolve();
            if (status === Strophe.Status.DISCONNECTED) gone.put(true);
            if ([Strophe.Status.CONNFAIL, Strophe.Status.AUTHFAIL, Strophe.Status.ERROR].includes(status)) {
                reject(new Error(`${jid}: login failed: status ${status} ${condition ?? ''}`));
            }
        });
    });
    connection.send($pres());
    report('logged_in', { jid: connection.jid });
    return {
        jid: connection.jid,
        inbox,
        say: (to, text) => connection.send($msg({ to, type: 'chat' }).c('body').t(text)),
        logout: async () => {
            connection.disconnect('test done');
            await gone.take();
            report('logged_out', { jid });
        },
    };
}

// Everything `from` says must arrive at `to`: complete, unchanged and in order.
async function exchange(from, to) {
    const said = [...texts, LONG, ...BURST];
    for (const text of said) from.say(to.jid, text);
    for (const text of said) {
        const got = await to.inbox.take();
        if (got.text !== text) throw new Error(`expected ${JSON.stringify(text)}, got ${JSON.stringify(got.text)}`);
        if (got.from !== from.jid) throw new Error(`expected it from ${from.jid}, got it from ${got.from}`);
    }
    report('delivered', { from: from.jid, to: to.jid, messages: said.length });
}

function Queue() {
    const values = [];
    const takers = [];
    this.put = (value) => (takers.length > 0 ? takers.shift()(value) : values.push(value));
    this.take = () => new Promise((resolve) => (values.length > 0 ? resolve(values.shift()) : takers.push(resolve)));
}
