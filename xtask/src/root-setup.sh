# Runs inside a new root: accounts, a Kerberos realm, sshd, and the unit that runs a scenario.
set -eu
echo lab > /etc/hostname
printf '127.0.0.1 localhost lab kdc.example.test\n' > /etc/hosts
systemd-machine-id-setup >/dev/null

account() { # NAME UID
	useradd -m -u "$2" -s /bin/bash "$1"
	echo "$1:$1pw" | chpasswd -c SHA512 # not by PAM: pam_krb5 would ask a KDC
}
account alice 61001; account bob 61002; account carol 61003; account dave 61004
n=0; while [ $n -lt 50 ]; do account u$n $((61100 + n)); n=$((n + 1)); done

cat > /etc/krb5.conf <<X
[libdefaults]
	default_realm = EXAMPLE.TEST
	dns_lookup_kdc = false
	dns_lookup_realm = false
	dns_canonicalize_hostname = false
	rdns = false
	qualify_shortname = ""
[realms]
	EXAMPLE.TEST = {
		kdc = 127.0.0.1
	}
X
mkdir -p /etc/krb5kdc
cat > /etc/krb5kdc/kdc.conf <<X
[realms]
	EXAMPLE.TEST = {
		max_renewable_life = 7d
	}
X
kdb5_util create -s -P master -r EXAMPLE.TEST >/dev/null 2>&1
{
	for user in alice bob carol dave $(seq -f u%g 0 49); do echo "addprinc -pw ${user}pw $user"; done
	echo "addprinc -pw adminpw alice/admin"
	echo "addprinc -randkey afs/example.test"
	echo "addprinc -randkey host/lab"
	echo "ktadd -k /etc/krb5.keytab host/lab"
} | kadmin.local >/dev/null 2>&1
systemctl enable krb5-kdc >/dev/null 2>&1
systemctl disable krb5-admin-server lightdm >/dev/null 2>&1 || true
systemctl set-default multi-user.target >/dev/null 2>&1
systemctl mask apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer fstrim.timer \
	systemd-networkd-wait-online.service console-getty.service getty@tty1.service systemd-pcrphase.service >/dev/null 2>&1

ssh-keygen -A >/dev/null
cat > /etc/ssh/sshd_config.d/lab.conf <<X
ListenAddress 127.0.0.1
UseDNS no
PasswordAuthentication yes
KbdInteractiveAuthentication no
GSSAPIAuthentication yes
UsePAM yes
MaxStartups 300
MaxSessions 100
PerSourcePenalties no
X
# Only newer servers know the last one.
sshd -t -f /etc/ssh/sshd_config 2>/dev/null || { mkdir -p /run/sshd; sshd -t 2>/dev/null || sed -i /PerSource/d /etc/ssh/sshd_config.d/lab.conf; }
mkdir -p /root/.ssh
ssh-keygen -q -t ed25519 -N '' -f /root/.ssh/id_ed25519
printf 'StrictHostKeyChecking no\nUserKnownHostsFile /dev/null\nLogLevel ERROR\n' > /root/.ssh/config
for home in /home/*; do
	user=${home#/home/}
	install -d -m 700 -o "$user" -g "$user" "$home/.ssh"
	install -m 600 -o "$user" -g "$user" /root/.ssh/id_ed25519.pub "$home/.ssh/authorized_keys"
done

# A manager stays for this long after the last login, 10 s by default, and most scenarios wait for its end.
mkdir -p /etc/systemd/logind.conf.d
printf '[Login]\nUserStopDelaySec=2\n' > /etc/systemd/logind.conf.d/lab.conf

cat > /etc/systemd/system/pag-scenario.service <<X
[Unit]
After=ssh.service systemd-logind.service systemd-user-sessions.service dbus.service krb5-kdc.service pag-logind-helper.service
Wants=ssh.service krb5-kdc.service
[Service]
Type=oneshot
KeyringMode=private
TimeoutStartSec=infinity
Environment=HOME=/root RUST_BACKTRACE=0
EnvironmentFile=-/lab/environment
ExecStart=/bin/sh -c '/lab/pag-scenario \$SCENARIO \$BOOT > /lab/output 2>&1; echo \$? > /lab/status; journalctl -q --no-pager -b > /lab/journal 2>&1; systemctl --force exit'
[Install]
WantedBy=multi-user.target
X
systemctl enable pag-scenario.service >/dev/null 2>&1
printf '[Journal]\nStorage=volatile\nRateLimitIntervalSec=0\nForwardToSyslog=no\n' > /etc/systemd/journald.conf
rm -rf /var/cache/apt/* /var/lib/apt/lists/* /root/setup.sh
