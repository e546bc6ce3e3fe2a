#!/bin/sh
# Makes the image's whole file system: the binary, the libraries that it was linked with, the
# authorities that it trusts, and a user. No shell, no packages, nothing to update but itself.
#
#   infra/rootfs.sh BINARY FOLDER
set -eu

binary=$1
root=$2

mkdir -p "$root/etc/ssl/certs"
cp "$binary" "$root/aftercommit"

# The loader and the libraries, under the names by which the loader looks for them.
ldd "$binary" | grep -o '/[^ ]*' | while read -r library; do
    mkdir -p "$root$(dirname "$library")"
    cp -L "$library" "$root$library"
done

cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
echo 'nonroot:x:65532:65532:nonroot:/:/none' >"$root/etc/passwd"
echo 'nonroot:x:65532:' >"$root/etc/group"
echo 'hosts: files dns' >"$root/etc/nsswitch.conf"

# What the libraries' licences ask for.
for package in libc6 libgcc-s1; do
    mkdir -p "$root/usr/share/doc/$package"
    cp -L "/usr/share/doc/$package/copyright" "$root/usr/share/doc/$package/"
done
