// alice and bob chat with @xmpp/client over WebSocket (a ws: service) or TCP (an xmpp: service).
//
//   node xmppjs.mjs --service URL
import WebSocket from 'ws';
import { main, options, report } from './report.mjs';
import { accounts, chat, Queue } from './chat.mjs';

globalThis.WebSocket ??= WebSocket; // node has one since version 22
const { client, xml } = await import('@xmpp/client');

const { service } = options(['service']);

// Over TCP it decodes each piece of the stream by itself, and where a character is cut it is lost.
const long = service.startsWith('xmpp:') ? '0123456789 '.repeat(24_000) : undefined;

await main(30, () => chat(login, accounts('xmppjs'), long));

async function login({ jid, domain, username, resource, password }) {
    const connection = client({ service, domain, username, resource, password });
    connection.reconnect.stop();
    const inbox = new Queue();
    const broken = new Promise((_, reject) => connection.on('error', (error) => reject(error)));
    broken.catch(() => {});
    connection.on('stanza', (stanza) => {
        if (stanza.is('message') && stanza.getChild('body')) {
            inbox.put({ from: stanza.attrs.from, text: stanza.getChildText('body') });
        }
    });
    const address = await Promise.race([connection.start(), broken]);
    await connection.send(xml('presence'));
    report('logged_in', { jid: address.toString() });
    return {
        jid: address.toString(),
        inbox,
        say: (to, text) => connection.send(xml('message', { to, type: 'chat' }, xml('body', {}, text))),
        logout: async () => {
            await connection.stop();
            report('logged_out', { jid });
        },
    };
}
