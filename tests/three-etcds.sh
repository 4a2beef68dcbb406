#!/bin/sh
# Three members of an etcd with TLS on 127.0.0.1, until Ctrl-C: something to try `--datastore` on. Wants etcd and
# openssl. Usage: tests/three-etcds.sh [FOLDER]; what is in the folder is removed.
set -eu
folder=${1:-/tmp/three-etcds}
rm -rf "$folder"
mkdir -p "$folder"
cd "$folder"

key() { openssl ecparam -name prime256v1 -genkey -noout -out "$1.key"; }
key ca
openssl req -x509 -new -key ca.key -subj /CN=etcd-ca -days 365 -out ca.crt
for who in server client; do
    key $who
    openssl req -new -key $who.key -subj /CN=$who -out $who.csr
    printf 'subjectAltName=IP:127.0.0.1,DNS:localhost\nextendedKeyUsage=serverAuth,clientAuth\n' >$who.ext
    openssl x509 -req -in $who.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 365 -extfile $who.ext -out $who.crt \
        2>/dev/null
done

members= ; endpoints= ; pids=
for n in 1 2 3; do members="$members${members:+,}etcd$n=https://127.0.0.1:${n}2380"; done
trap 'kill $pids 2>/dev/null; wait' EXIT
trap exit INT TERM
for n in 1 2 3; do
    etcd --name etcd$n --data-dir data$n --initial-cluster "$members" \
        --listen-client-urls https://127.0.0.1:${n}2379 --advertise-client-urls https://127.0.0.1:${n}2379 \
        --listen-peer-urls https://127.0.0.1:${n}2380 --initial-advertise-peer-urls https://127.0.0.1:${n}2380 \
        --client-cert-auth --trusted-ca-file ca.crt --cert-file server.crt --key-file server.key \
        --peer-client-cert-auth --peer-trusted-ca-file ca.crt --peer-cert-file server.crt --peer-key-file server.key \
        >etcd$n.log 2>&1 &
    pids="$pids $!"
    endpoints="$endpoints${endpoints:+,}https://127.0.0.1:${n}2379"
done
echo "--datastore $endpoints --datastore-ca $folder/ca.crt --datastore-cert $folder/client.crt --datastore-key $folder/client.key"
wait
