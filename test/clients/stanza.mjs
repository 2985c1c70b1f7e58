// alice and bob chat with stanza.js over BOSH (an http: service) or WebSocket (a ws: service).
//
//   node stanza.mjs --service URL
import { webcrypto } from 'node:crypto';
import { main, options, report } from './report.mjs';
import { accounts, chat, Queue } from './chat.mjs';

globalThis.crypto ??= webcrypto;
const { default: { createClient } } = await import('stanza');

const { service } = options(['service']);

await main(30, () => chat(login, accounts('stanza')));

async function login({ jid, password }) {
    const transport = service.startsWith('ws') ? 'websocket' : 'bosh';
    const client = createClient({
        jid, password, autoReconnect: false,
        transports: { websocket: false, bosh: false, [transport]: service },
    });
    const inbox = new Queue();
    const gone = new Queue();
    client.on('message', ({ from, body }) => inbox.put({ from, text: body }));
    client.on('disconnected', () => gone.put(true));
    const bound = new Promise((resolve, reject) => {
        client.on('session:started', resolve);
        client.on('auth:failed', () => reject(new Error(`${jid}: login failed`)));
        client.on('stream:error', (error) => reject(new Error(`${jid}: ${JSON.stringify(error)}`)));
    });
    client.connect();
    await bound;
    client.sendPresence();
    report('logged_in', { jid: client.jid });
    return {
        jid: client.jid,
        inbox,
        say: (to, text) => client.sendMessage({ to, type: 'chat', body: text }),
        logout: async () => {
            client.disconnect();
            await gone.take();
            report('logged_out', { jid });
        },
    };
}
