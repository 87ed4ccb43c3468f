# Runs in the machine, as root, once for each of its two parts: `servers` makes the cell, `homes` what is in it.
HOST=afs.example.test CELL=example.test BIN=/usr/lib/openafs
waits() { n=0; until "$@"; do n=$((n + 1)); [ $n -lt 600 ] || exit 1; sleep 0.5; done; }

servers() {
	akeyconvert -all
	systemctl restart openafs-fileserver
	waits bos adduser $HOST admin -localauth
	bos create $HOST ptserver simple $BIN/ptserver -localauth
	bos create $HOST vlserver simple $BIN/vlserver -localauth
	waits pts createuser admin -id 1000 -localauth
	pts adduser admin system:administrators -localauth
	pts createuser alice -id 61001 -localauth
	pts createuser bob -id 61002 -localauth
	pts createuser alice.admin -id 61011 -localauth
	pts createuser bob.admin -id 61012 -localauth
	pts createuser web -id 61013 -localauth
	bos create $HOST dafs dafs "$BIN/dafileserver -p 8" "$BIN/davolserver -p 4" $BIN/salvageserver $BIN/dasalvager -localauth
	# Never by itself: see lab-cell.
	bos stop $HOST dafs -localauth -wait
	lab-cell
	waits vos partinfo $HOST -localauth
	for volume in root.afs root.cell user.alice user.bob; do waits vos create $HOST a $volume -localauth; done
}

# Volumes for the users' homes, which they alone can read.
homes() {
	lab-client openafs
	echo adminpw | kinit -c FILE:/run/admin.ccache admin
	export KRB5CCNAME=FILE:/run/admin.ccache
	aklog
	fs setacl /afs/$CELL system:anyuser rl
	mkdir /afs/$CELL/user /afs/$CELL/admin
	for user in alice bob; do
		home=/afs/$CELL/user/$user
		fs mkmount $home user.$user
		fs setacl $home -clear -acl $user all system:administrators all
		mkdir -p $home/.config/systemd/user $home/.local/share/dbus-1/services
		cp /etc/skel/.bashrc /etc/skel/.profile $home/
		echo "a secret of $user's" > $home/secret
		chown -R $user:$user $home
		find $home -depth -type d -exec fs setacl {} -clear -acl $user all \;
		# What the user's other identity can read, and the user himself cannot.
		mkdir /afs/$CELL/admin/$user
		echo "a secret of $user/admin's" > /afs/$CELL/admin/$user/secret
		fs setacl /afs/$CELL/admin/$user -clear -acl $user.admin all
	done
	# What a service of the web server can read, and no user.
	mkdir /afs/$CELL/web
	echo "a secret of web's" > /afs/$CELL/web/secret
	fs setacl /afs/$CELL/web -clear -acl web read
	unlog
	kdestroy
	if cat /afs/$CELL/user/alice/secret; then exit 1; fi
	lab-client none
	# The file server forgets this client.
	bos shutdown $HOST dafs -localauth -wait
	rm -f /var/lib/openafs/local/fsstate.dat*
	lab-cell
}

$1
