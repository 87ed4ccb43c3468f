# Runs inside the machine's new root, before it is an image: accounts, a Kerberos realm, sshd, the configuration of an
# AFS cell and of both clients, and the agent that takes the host's orders.
set -eu
HOST=afs.example.test ADDRESS=10.99.0.10 CELL=example.test REALM=EXAMPLE.TEST
echo afs > /etc/hostname
printf '127.0.0.1 localhost\n%s %s afs\n' $ADDRESS $HOST > /etc/hosts
echo '/dev/vda / ext4 noatime 0 0' > /etc/fstab
systemd-machine-id-setup >/dev/null
ln -sf /usr/share/zoneinfo/UTC /etc/localtime

account() { # NAME UID: the home is in AFS, and made there
	useradd -M -d /afs/$CELL/user/"$1" -u "$2" -s /bin/bash "$1"
	echo "$1:$1pw" | chpasswd -c SHA512 # not by PAM: pam_krb5 would ask a KDC
}
account alice 61001; account bob 61002
# Scenarios choose: as it comes, neither today's module nor ours is in a stack. pam-auth-update takes seconds in emulation.
mkdir /usr/local/share/todays-pam.d
cp /etc/pam.d/common-* /usr/local/share/todays-pam.d/
grep -q pam_afs_session /usr/local/share/todays-pam.d/common-session
pam-auth-update --disable afs-session

cat > /etc/krb5.conf <<X
[libdefaults]
	default_realm = $REALM
	dns_lookup_kdc = false
	dns_lookup_realm = false
	dns_canonicalize_hostname = false
	rdns = false
	forwardable = true
[realms]
	$REALM = {
		kdc = $ADDRESS
	}
[domain_realm]
	$CELL = $REALM
	.$CELL = $REALM
[appdefaults]
	pam = {
		forwardable = true
		minimum_uid = 1000
	}
X
mkdir -p /etc/krb5kdc /etc/openafs/server
cat > /etc/krb5kdc/kdc.conf <<X
[realms]
	$REALM = {
		max_renewable_life = 7d
	}
X
kdb5_util create -s -P master -r $REALM >/dev/null 2>&1
KEYTAB=/etc/openafs/server/rxkad.keytab ENCTYPE=aes256-cts-hmac-sha1-96:normal
kadmin.local >/dev/null 2>&1 <<X
addprinc -pw alicepw alice
addprinc -pw bobpw bob
addprinc -pw adminpw alice/admin
addprinc -pw adminpw bob/admin
addprinc -pw adminpw admin
addprinc -randkey host/$HOST
ktadd host/$HOST
addprinc -randkey HTTP/$HOST
ktadd -k /etc/http.keytab HTTP/$HOST
addprinc -randkey web
ktadd -k /etc/web.keytab web
addprinc -randkey -e $ENCTYPE afs/$CELL
ktadd -k $KEYTAB -e $ENCTYPE afs/$CELL
X
test -s /etc/krb5.keytab && test -s $KEYTAB
chown www-data /etc/http.keytab /etc/web.keytab

# The cell, for its servers and for OpenAFS's client. The client's cache is in memory: no partition, nothing to scan.
echo $CELL > /etc/openafs/ThisCell
printf '>%s\n%s #%s\n' $CELL $ADDRESS $HOST > /etc/openafs/CellServDB
cp /etc/openafs/ThisCell /etc/openafs/CellServDB /etc/openafs/server/
echo '/afs:/var/cache/openafs:50000' > /etc/openafs/cacheinfo
sed -i 's/^OPTIONS=.*/OPTIONS="-memcache -blocks 16384 -stat 2000 -daemons 2"/' /etc/openafs/afs.conf
printf 'AFS_CLIENT=true\nAFS_AFSDB=false\nAFS_CRYPT=true\nAFS_DYNROOT=Yes\nAFS_FAKESTAT=true\n' > /etc/openafs/afs.conf.client
mkdir -p /afs /vicepa
# A plain directory is taken for a partition of the file server only with this file in it.
touch /vicepa/AlwaysAttach
cat > /etc/kafs/client.d/lab.conf <<X
[defaults]
	thiscell = $CELL
[cells]
	$CELL = {
		kerberos_realm = $REALM
		use_dns = no
		servers = {
			$HOST = {
				address = $ADDRESS
			}
		}
	}
X

ssh-keygen -A >/dev/null
cat > /etc/ssh/sshd_config.d/lab.conf <<X
ListenAddress 127.0.0.1
ListenAddress $ADDRESS
UseDNS no
UsePAM yes
PasswordAuthentication yes
KbdInteractiveAuthentication no
GSSAPIAuthentication yes
# The host's own name is short, and its key is for the long one.
GSSAPIStrictAcceptorCheck no
# Nobody has a token when sshd looks for them: they can't lie in an AFS home.
AuthorizedKeysFile /etc/ssh/keys/%u
MaxStartups 300
MaxSessions 100
PerSourcePenalties no
X
# Only newer servers know the last one.
mkdir -p /run/sshd
sshd -t 2>/dev/null || sed -i /PerSource/d /etc/ssh/sshd_config.d/lab.conf
sshd -t
mkdir -p /root/.ssh /etc/ssh/keys
ssh-keygen -q -t ed25519 -N '' -f /root/.ssh/id_ed25519
cp /root/.ssh/id_ed25519.pub /etc/ssh/keys/alice
cp /root/.ssh/id_ed25519.pub /etc/ssh/keys/bob
# The exchange of keys that is the default today costs a second when it is emulated.
printf '%s\n' 'StrictHostKeyChecking no' 'UserKnownHostsFile /dev/null' 'LogLevel ERROR' \
	'KexAlgorithms curve25519-sha256' > /root/.ssh/config

# OpenAFS's servers do not listen on the loopback interface; this one needs no network, and none is there.
cat > /etc/systemd/system/lab-net.service <<X
[Unit]
DefaultDependencies=no
After=systemd-modules-load.service
Before=network-pre.target network.target
Wants=network-pre.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/sbin/modprobe dummy numdummies=0
ExecStart=/sbin/ip link set lo up
ExecStart=/sbin/ip link add lab0 type dummy
ExecStart=/sbin/ip address add $ADDRESS/24 dev lab0
ExecStart=/sbin/ip link set lab0 up
[Install]
WantedBy=sysinit.target
X
cat > /etc/systemd/system/lab-agent.service <<X
[Unit]
After=ssh.service systemd-logind.service systemd-user-sessions.service dbus.service krb5-kdc.service openafs-fileserver.service
[Service]
Type=simple
KeyringMode=private
Environment=HOME=/root RUST_BACKTRACE=0
ExecStart=/usr/local/sbin/lab-agent
[Install]
WantedBy=multi-user.target
X

# The file server asks for its cell's database once, when it starts, and then not for 27 s: too early, and volumes have
# no address. So it starts when ptserver and vlserver are ready, at the agent's word, and never by itself.
cat > /usr/local/sbin/lab-cell <<X
#!/bin/sh
ready() { udebug $ADDRESS \$1 2>/dev/null | grep -q 'I am sync site'; }
waits() { n=0; until "\$@"; do n=\$((n + 1)); [ \$n -lt 1500 ] || { echo "not within 300 s: \$*"; exit 1; }; sleep 0.2; done; }
waits ready 7002
waits ready 7003
rm -f /var/log/openafs/FileLog
bos startup $ADDRESS dafs -localauth || exit 1
waits grep -q 'File Server started' /var/log/openafs/FileLog 2>/dev/null
X
# Both clients call their file system afs and want port 7001: one at a time.
cat > /usr/local/sbin/lab-client <<X
#!/bin/sh
# lab-client openafs|kafs|none: have that client's module loaded and its file system on /afs, and no other's.
set -e
loaded() { grep -q "^\$1 " /proc/modules; }
if [ "\$1" != openafs ] && loaded openafs; then systemctl stop openafs-client; loaded openafs && rmmod openafs; fi
if [ "\$1" != kafs ] && loaded kafs; then systemctl stop afs.mount kafs-client; rmmod kafs; fi
case \$1 in
openafs) systemctl start openafs-client ;;
kafs) systemctl start afs.mount ;;
none) exit 0 ;;
*) echo "no client is called \$1"; exit 2 ;;
esac
mountpoint -q /afs
X
cat > /usr/local/sbin/lab-agent <<'X'
#!/bin/bash
# Takes the host's orders from a virtio port, one a line, and answers each with "done" or "failed", after what it said.
# A machine is frozen while it waits here: nothing of the host's is mounted then, since that could not be frozen.
exec 3<>/dev/virtio-ports/lab
share() { mkdir -p /lab && mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144,cache=none lab /lab; }
order() {
	case $1 in
	time) date -s "@$2" >/dev/null ;;
	provision) sh -ex /usr/local/sbin/lab-provision "$2" ;;
	module) share && cp /lab/openafs.ko* "/usr/lib/modules/$(uname -r)/" && umount /lab && depmod ;;
	cell) lab-cell ;;
	client) lab-client "$2" ;;
	settle) sync; sleep 1 ;;
	run) share && sh /lab/run ;;
	off) systemctl poweroff ;;
	*) echo "no such order: $*"; false ;;
	esac
}
echo ready >&3
while :; do
	# At the end of what the port has, and while the host is not there, read fails at once.
	read -r word argument <&3 || { sleep 0.05; continue; }
	if order "$word" "$argument" >/run/lab-order.log 2>&1 </dev/null; then answer=done; else answer=failed; fi
	{ [ $answer = done ] || cat /run/lab-order.log; echo $answer; } >&3
done
X
chmod 755 /usr/local/sbin/lab-*
# What an order to run finds loaded when the machine is frozen.
printf '9pnet_virtio\n9p\nvirtio_console\n' > /etc/modules-load.d/lab.conf
systemctl enable lab-net lab-agent ssh krb5-kdc openafs-fileserver >/dev/null 2>&1
systemctl disable krb5-admin-server openafs-client afs.mount >/dev/null 2>&1 || true
systemctl set-default multi-user.target >/dev/null 2>&1
systemctl mask apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service \
	fstrim.timer getty@tty1.service serial-getty@ttyS0.service systemd-networkd-wait-online.service >/dev/null 2>&1
# A user manager stays for 10 s by default; here everybody waits for its end.
mkdir -p /etc/systemd/logind.conf.d
printf '[Login]\nUserStopDelaySec=2\n' > /etc/systemd/logind.conf.d/lab.conf
printf '[Journal]\nStorage=volatile\nRateLimitIntervalSec=0\nForwardToSyslog=no\n' > /etc/systemd/journald.conf

# The kernel, and what it needs before it has its root.
KERNEL=$(ls /usr/lib/modules)
cp /boot/vmlinuz-"$KERNEL" /boot/kernel
mkdir -p /tmp/initrd/bin /tmp/initrd/proc /tmp/initrd/sys /tmp/initrd/dev /tmp/initrd/root
cd /tmp/initrd
cp /bin/busybox bin/
cat > init <<'X'
#!/bin/busybox sh
export PATH=/bin
/bin/busybox --install -s /bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
while read -r module; do insmod /"$module"; done < /order
n=0; until [ -b /dev/vda ] || [ $n -gt 200 ]; do n=$((n + 1)); sleep 0.05; done
mount -t ext4 -o noatime /dev/vda /root || exec sh
mount --move /dev /root/dev; mount --move /sys /root/sys; mount --move /proc /root/proc
exec switch_root /root /lib/systemd/systemd
X
chmod 755 init
for module in crc32c_generic virtio_pci virtio_blk ext4; do
	modprobe -S "$KERNEL" --show-depends $module | sed -n 's/^insmod \([^ ]*\).*/\1/p'
done | awk '!seen[$0]++' | while read -r file; do
	name=$(basename "${file%.xz}")
	case $file in *.xz) xz -dc "$file" > "$name" ;; *) cp "$file" "$name" ;; esac
	echo "$name"
done > order
find . | busybox cpio -o -H newc > /boot/initrd 2>/dev/null
rm -rf /tmp/initrd
