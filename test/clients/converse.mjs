// alice and bob log in with Converse.js in headless Chromium, each in a browser context of their own, and chat.
//
//   node converse.mjs --page URL --transport bosh|websocket --chromium FILE --pictures DIR --name NAME
//
// A failure leaves a picture of each page in DIR: NAME-alice.png, NAME-bob.png.
import { join } from 'node:path';
import { readFileSync } from 'node:fs';
import { chromium } from 'playwright-core';
import { main, options, report } from './report.mjs';

const SECONDS = 60;
const given = options(['page', 'transport', 'chromium', 'pictures', 'name']);
const { plain, markup, unicode } = JSON.parse(readFileSync(new URL('texts.json', import.meta.url)));

const broken = []; // what went wrong in the pages' own code
let websockets = 0;
const browser = await chromium.launch({
    executablePath: given.chromium,
    args: [
        '--no-sandbox', // it runs as root in a container
        '--disable-gpu', '--disable-quic', '--no-first-run',
        '--disable-background-networking', '--disable-component-update', '--disable-sync',
        // Nothing but the server under test is there, and a look-up of anything else fails at once.
        '--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1',
    ],
});

await main(SECONDS, async () => {
    const pages = { alice: await open('alice'), bob: await open('bob') };
    try {
        await Promise.all([login(pages.alice, 'alice', 'bob'), login(pages.bob, 'bob', 'alice')]);
        for (const text of [plain, markup, unicode]) {
            await say(pages.alice, text);
            await see(pages.bob, 'bob', text);
            await say(pages.bob, `re: ${text}`);
            await see(pages.alice, 'alice', `re: ${text}`);
        }
        if (broken.length > 0) throw new Error(`a page's script failed: ${broken}`);
        if (websockets > 0 !== (given.transport === 'websocket')) throw new Error(`${websockets} WebSockets were opened`);
    } catch (error) {
        for (const [user, page] of Object.entries(pages)) {
            await page.screenshot({ path: join(given.pictures, `${given.name}-${user}.png`) });
        }
        throw error;
    } finally {
        await browser.close();
    }
});

// A page of a browser of the user's own, which tells what goes wrong in it.
async function open(user) {
    const context = await browser.newContext();
    const page = await context.newPage();
    page.setDefaultTimeout(SECONDS * 250);
    page.on('console', (message) => message.type() === 'error' && report('console', { user, text: message.text() }));
    page.on('pageerror', (error) => broken.push(`${user}: ${error}`));
    page.on('requestfailed', (request) =>
        report('requestfailed', { user, url: request.url(), error: request.failure()?.errorText }));
    page.on('websocket', () => (websockets += 1));
    return page;
}

// Logs `user` in and opens the chat with `peer`.
async function login(page, user, peer) {
    await page.goto(given.page);
    await page.fill('input[name=jid]', `${user}@localhost`);
    await page.fill('input[name=password]', `${user}-pw`);
    await page.press('input[name=password]', 'Enter');
    await page.waitForSelector('converse-roster-contact');
    await page.evaluate((jid) => (location.hash = `#converse/chat?jid=${jid}`), `${peer}@localhost`);
    await page.waitForSelector('textarea.chat-textarea');
    report('logged_in', { user });
}

async function say(page, text) {
    await page.fill('textarea.chat-textarea', text);
    await page.press('textarea.chat-textarea', 'Enter');
}

async function see(page, user, text) {
    await page.waitForFunction(
        (text) => [...document.querySelectorAll('.chat-msg__text')].some((shown) => shown.innerText.trim() === text),
        text);
    report('seen', { user, text });
}
