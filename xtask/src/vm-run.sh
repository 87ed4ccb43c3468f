# Runs in the machine, as root, from the share: puts the product in, if there is one, and runs the command.
set -e
. /lab/environment
since=$(date +%s)
# Archives, since each file of a share costs the machine many exchanges with its host.
tar -xf /lab/programs.tar -C /usr/local/bin
if [ -e /lab/product.tar ]; then
	tar -xf /lab/product.tar -C /
	systemd-sysusers pag.conf
	pagctl pam enable --yes
	systemctl daemon-reload
	systemctl start pag-logind-helper
fi
export PAG_PATIENCE=5
code=0
timeout -k 5 "$LIMIT" sh /lab/command > /lab/output 2>&1 || code=$?
echo $code > /lab/status
journalctl --sync || true
journalctl -q --no-pager -b --since "@$since" > /lab/journal 2>&1
