// alice logs in with strophe.js over BOSH (an http: service) or WebSocket (a ws: service) and is sent
// away: what for is the last thing that she reports.
//
//   node goodbye.mjs --service URL
import http from 'node:http';
import { createRequire } from 'node:module';
import { webcrypto } from 'node:crypto';
import { main, options, report } from './report.mjs';

globalThis.crypto ??= webcrypto;
const { XMLHttpRequest } = createRequire(import.meta.url)('xhr2');
XMLHttpRequest.nodejsSet({ httpAgent: new http.Agent({ keepAlive: true }) });
const { Strophe, $pres } = await import('strophe.js');
// strophe.js reads a BOSH answer from `responseXML`, which xhr2 does not have.
globalThis.XMLHttpRequest = class extends XMLHttpRequest {
    get responseXML() {
        return this.responseText ? new DOMParser().parseFromString(this.responseText, 'text/xml') : null;
    }
};
Strophe.setLogLevel(Strophe.LogLevel.FATAL);

const { service } = options(['service']);

await main(30, async () => {
    const connection = new Strophe.Connection(service);
    let said = '';
    connection.rawInput = (data) => (said += data);
    await new Promise((resolve) => {
        connection.connect('alice@localhost/goodbye', 'alice-pw', (status, condition) => {
            if (status === Strophe.Status.CONNECTED) {
                said = '';
                connection.send($pres());
                report('logged_in', { jid: connection.jid });
            }
            // Over WebSocket strophe.js reads the error itself; over BOSH it looks no further than the body.
            if ([Strophe.Status.ERROR, Strophe.Status.CONNFAIL].includes(status)) {
                report('failed', { condition });
                said += `<${condition} />`;
            }
            if (status === Strophe.Status.DISCONNECTED) resolve();
        });
    });
    report('gone', { said });
    if (!said.includes('<system-shutdown ')) throw new Error(`sent away with ${said}`);
});
