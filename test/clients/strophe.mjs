// Two users chat with strophe.js over BOSH (an http: service) or WebSocket (a ws: service).
//
//   node strophe.mjs --service URL --mode password|anonymous
//
// `password` logs in alice and bob on localhost, `anonymous` two strangers on anon.localhost.
import http from 'node:http';
import { createRequire } from 'node:module';
import { webcrypto } from 'node:crypto';
import { main, options, report } from './report.mjs';
import { accounts, chat, Queue } from './chat.mjs';

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

const { service, mode } = options(['service', 'mode']);
const users = mode === 'anonymous' ? Array(2).fill({ jid: 'anon.localhost' }) : accounts('strophe');

await main(30, () => chat(login, users));

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
