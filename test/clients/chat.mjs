// What two users of any client library say to each other, and how it is checked.
import { readFileSync } from 'node:fs';
import { report } from './report.mjs';

const texts = Object.values(JSON.parse(readFileSync(new URL('texts.json', import.meta.url))));
const LONG = 'ξ0123456789 '.repeat(20_000); // 260,000 bytes of UTF-8, sixteen windows of the link
const BURST = Array.from({ length: 50 }, (_, n) => `burst ${n}`);

// `login(user)` gives { jid, inbox, say(to, text), logout() }; the inbox is a Queue of { from, text }.
// A library that breaks characters which come in two pieces gets no `long` ones but those it can read.
export async function chat(login, [one, two], long = LONG) {
    const [a, b] = await Promise.all([login(one), login(two)]);
    await exchange(a, b, long);
    await exchange(b, a, long);
    await Promise.all([a.logout(), b.logout()]);
}

// alice and bob on localhost, with a resource that says which client it is.
export function accounts(resource) {
    return ['alice', 'bob'].map((username) => ({
        jid: `${username}@localhost/${resource}`, domain: 'localhost', username, resource, password: `${username}-pw`,
    }));
}

// Everything `from` says must arrive at `to`: complete, unchanged and in order.
async function exchange(from, to, long) {
    const said = [...texts, long, ...BURST];
    for (const text of said) await from.say(to.jid, text);
    for (const text of said) {
        const got = await to.inbox.take();
        if (got.text !== text) throw new Error(`expected ${JSON.stringify(text)}, got ${JSON.stringify(got.text)}`);
        if (got.from !== from.jid) throw new Error(`expected it from ${from.jid}, got it from ${got.from}`);
    }
    report('delivered', { from: from.jid, to: to.jid, messages: said.length });
}

// Values that can be waited for.
export function Queue() {
    const values = [];
    const takers = [];
    this.put = (value) => (takers.length > 0 ? takers.shift()(value) : values.push(value));
    this.take = () => new Promise((resolve) => (values.length > 0 ? resolve(values.shift()) : takers.push(resolve)));
}
