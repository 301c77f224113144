// node client.js METHOD [NAME=TEXT | NAME:=JSON | NAME=@FILE]...
const { readFileSync } = require('fs');
const quit = (status, message) => { console.error(`client: ${message}`); process.exit(status); };
process.on('uncaughtException', (error) => quit(3, error.message));

const head = (type, size) => Buffer.of(type, size >>> 24, size >>> 16, size >>> 8, size); // always the longest
const sized = (type, bytes) => Buffer.concat([head(type, bytes.length), bytes]);
const pack = (value) => typeof value === 'boolean' ? Buffer.of(value ? 0xc3 : 0xc2)
  : value >>> 0 === value ? head(0xce, value) // an unsigned number of 32 bits
  : sized(typeof value === 'string' ? 0xdb : 0xc6, Buffer.from(value));
const kinds = { '=': String, ':=': JSON.parse, '=@': (file) => Buffer.from(`${readFileSync(file)}`, 'base64') };
const argument = (word) => {
  const [, name, kind, value] = /^(\w+)(:=|=@|=)(.*)$/s.exec(word) ?? quit(2, `no argument: ${word}`);
  return [pack(name), pack(kinds[kind](value))];
};

let answer = Buffer.alloc(0), at = 0; // and how much of it is read
const take = (size) => answer.subarray(at, (at += size) <= answer.length ? at : quit(3, 'no whole answer'));
const uint = (size) => Number(`0x${take(size).toString('hex')}`);
const text = (size) => take(size).toString();
const list = (size, items = []) => { while (items.length < size) items.push(value()); return items; };
const map = (size, named = {}) => { while (size-- > 0) named[value()] = value(); return named; };
const types = { // all that are in results: no number there is negative
  0xc0: () => null, 0xc2: () => false, 0xc3: () => true,
  0xcc: () => uint(1), 0xcd: () => uint(2), 0xce: () => uint(4), 0xcf: () => uint(8),
  0xd9: () => text(uint(1)), 0xda: () => text(uint(2)), 0xdb: () => text(uint(4)),
  0xdc: () => list(uint(2)), 0xdd: () => list(uint(4)), 0xde: () => map(uint(2)), 0xdf: () => map(uint(4)),
};
const value = (type = uint(1)) => type < 0x80 ? type : type < 0x90 ? map(type & 15) :
  type < 0xa0 ? list(type & 15) : type < 0xc0 ? text(type & 31) : (types[type] ?? quit(3, 'no answer'))();

const [method = quit(2, 'which METHOD?'), ...words] = process.argv.slice(2);
const request = [Buffer.of(0x94, 0, 1), pack(method), Buffer.of(0x91), head(0xdf, words.length)];
const socket = require('net').connect(process.env.PKI2FAD_SOCKET || '/run/pki2fad/socket');
socket.on('data', (chunk) => { answer = Buffer.concat([answer, chunk]); }).on('end', () => {
  const [type, msgid, error, result] = value();
  if (type !== 1 || msgid !== 1) quit(3, 'no answer');
  error === null ? console.log(JSON.stringify(result)) : quit(1, error[1]);
}).setTimeout(5000, () => quit(3, 'no answer')).end(Buffer.concat([...request, ...words.flatMap(argument)]));
