# Runs inside a new tree while apt still has its lists: unpacks Debian's kernel. Installed as a package it would bring
# initramfs-tools, and half a minute of work for an initial ramdisk that is not used; its drivers are for hardware.
set -eu
package=$(apt-cache depends linux-image-amd64 | sed -n 's/.*Depends: \(linux-image-[0-9]\)/\1/p')
cd /tmp
apt-get -qq download "$package"
dpkg-deb -x "$package"_*.deb kernel
mkdir -p /usr/lib/modules
for modules in kernel/lib/modules kernel/usr/lib/modules; do
	[ ! -d $modules ] || mv $modules/* /usr/lib/modules/
done
mv kernel/boot/vmlinuz-* /boot/
rm -r kernel "$package"_*.deb
version=${package#linux-image-}
cd "/usr/lib/modules/$version"
rm -rf kernel/sound
find kernel/drivers -name '*.ko*' | grep -Ev '/(virtio[a-z_-]*|rng-core|dummy|loop)\.ko' | xargs rm
depmod "$version"
