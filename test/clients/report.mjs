// How the node clients tell a suite what happened: one JSON line an event, an exit status at the end.

export function report(event, facts = {}) {
    process.stdout.write(JSON.stringify({ event, ...facts }) + '\n');
}

// Runs `work` to its end within `seconds`; a failure is the last line and status 1.
export async function main(seconds, work) {
    const limit = setTimeout(() => finish(1, { error: `not done after ${seconds} s` }), seconds * 1000);
    try {
        await work();
        clearTimeout(limit);
        finish(0);
    } catch (error) {
        finish(1, { error: error?.stack ?? String(error) });
    }
}

function finish(status, facts = {}) {
    process.stdout.write(JSON.stringify({ event: status === 0 ? 'done' : 'failed', ...facts }) + '\n', () =>
        process.exit(status));
}

// `--name value` pairs; every name in `wanted` must be there.
export function options(wanted) {
    const given = {};
    for (let at = 2; at < process.argv.length; at += 2) {
        given[process.argv[at].replace(/^--/, '')] = process.argv[at + 1];
    }
    const missing = wanted.filter((name) => given[name] === undefined);
    if (missing.length > 0) throw new Error(`missing option: --${missing.join(', --')}`);
    return given;
}
