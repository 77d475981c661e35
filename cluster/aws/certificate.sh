#!/bin/sh
# Makes certificates for Ray's TLS (docs/aws.md): `certificate.sh FOLDER [ADDRESS ...]`.
#
# FOLDER/ca.key and ca.crt are the cluster's authority, made once if they are missing. FOLDER/node.key and node.crt are
# this node's, signed by the authority for the given addresses, by default those of the machine.
set -eu
umask 077
folder=$1
shift
mkdir -p "$folder"
cd "$folder"
if [ ! -f ca.crt ]; then
    openssl req -x509 -newkey rsa:2048 -nodes -days 3650 -subj "/CN=world-models" -keyout ca.key -out ca.crt 2>/dev/null
fi
names="DNS:localhost,IP:127.0.0.1"
for address in "${@:-$(hostname -I)}"; do
    for one in $address; do
        case $one in
            *:*) ;; # Ray uses IPv4
            *) names="$names,IP:$one" ;;
        esac
    done
done
openssl req -newkey rsa:2048 -nodes -subj "/CN=node" -keyout node.key -out node.csr 2>/dev/null
printf 'subjectAltName=%s\n' "$names" >node.ext
openssl x509 -req -in node.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 825 -extfile node.ext -out node.crt \
    2>/dev/null
rm -f node.csr node.ext
