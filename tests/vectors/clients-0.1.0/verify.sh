#!/bin/sh
# ./verify.sh CODE [ACCOUNT]: exits with 0 (valid), 1 (invalid), or 2 and why on stderr.
LC_ALL=C # ${#1} counts bytes
code=$1 account=${2-default} socket=${PKI2FAD_SOCKET:-/run/pki2fad/socket}

fail() { printf 'verify: %s\n' "$1" >&2; exit 2; }
put() { printf %b "\\0$(printf %03o "$1")"; } # one byte
text() { put 0xd9; put ${#1}; printf %s "$1"; }
request() { # [0, 1, "verify", [{"code": CODE, "account": ACCOUNT}]]
    printf '\224\000\001\246verify\221\202\244code'
    text "$code"
    printf '\247account'
    text "$account"
}
take() { # a byte off the front of $answer, which is hexadecimal
    [ -n "$answer" ] || fail 'no whole answer came'
    byte=$((0x${answer%"${answer#??}"})) answer=${answer#??}
}
string() { # prints the string at the front of $answer
    take
    if [ $byte -eq $((0xd9)) ]; then take; else byte=$((byte & 31)); fi
    left=$byte
    while [ $left -gt 0 ]; do take; put $byte; left=$((left - 1)); done
}

[ $# -gt 0 ] && [ ${#code} -le 255 ] && [ ${#account} -le 255 ] || fail 'usage: verify.sh CODE [ACCOUNT]'
answer=$(request | nc -NU -w 5 "$socket" | od -An -v -tx1 | tr -d ' \n')
case $answer in
940101c081a576616c6964c3) exit 0 ;; # [1, 1, nil, {"valid": true}]
940101c081a576616c6964c2) exit 1 ;;
9401019[23]*) answer=${answer#????????} ;; # [1, 1, [code, message, ...], nil]
*) fail "no answer: $answer" ;;
esac
string >/dev/null # the message begins with the code too
string >&2
echo >&2
exit 2
