// smtp_server.js PORT MAILDIR CERTIFICATE KEY - smtp-server (npm) as a receiver that keeps each message as it came, for the tests.
// Each is headed by Return-Path and one Delivered-To per recipient, so that the tests read it as they read any Maildir; line ends become LF.
'use strict';
const fs = require('fs');
const path = require('path');
const { SMTPServer } = require('smtp-server');

const [port, maildir, certificate, key] = process.argv.slice(2);
let count = 0;

function keep(stream, session, callback) {
    const chunks = [];
    stream.on('data', chunk => chunks.push(chunk));
    stream.on('end', () => {
        const { mailFrom, rcptTo } = session.envelope;
        const head = ['Return-Path: <' + (mailFrom ? mailFrom.address : '') + '>', ...rcptTo.map(to => 'Delivered-To: ' + to.address)];
        // latin1 is a byte for a byte.
        const content = Buffer.concat(chunks).toString('latin1').replace(/\r\n/g, '\n');
        const name = ++count + '.smtp_server';
        const draft = path.join(maildir, 'tmp', name);
        fs.writeFileSync(draft, Buffer.concat([Buffer.from(head.join('\n') + '\n'), Buffer.from(content, 'latin1')]));
        fs.renameSync(draft, path.join(maildir, 'new', name));
        callback(null, 'kept');
    });
}

const server = new SMTPServer({
    name: 'smtp-server.test', banner: 'smtp-server', cert: fs.readFileSync(certificate), key: fs.readFileSync(key),
    authOptional: true, disableReverseLookup: true, onData: keep,
});
server.on('error', problem => console.error(problem.message));
server.listen(Number(port), '127.0.0.1');
