# Runs inside a minimal Debian root, as root, in bash: makes a bare host that boots systemd in a container.
# Given: PACKAGES, perhaps APT_PROXY; /etc/apt/sources.list and /usr/local/share/ca-certificates are in place.
export DEBIAN_FRONTEND=noninteractive

# Nothing may start while the image is made; the file is removed again below.
printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d
chmod 755 /usr/sbin/policy-rc.d

# A lab host is thrown away: no fsync on unpacking, no manuals (half of the time of an install is writing).
cat > /etc/dpkg/dpkg.cfg.d/lab << 'EOF'
force-unsafe-io
path-exclude=/usr/share/doc/*
path-exclude=/usr/share/man/*
path-exclude=/usr/share/locale/*
path-include=/usr/share/doc/*/copyright
EOF
cat > /etc/apt/apt.conf.d/90lab << 'EOF'
Acquire::Languages "none";
Acquire::Retries "3";
EOF
if [ -n "${APT_PROXY:-}" ]; then
    printf 'Acquire::http::Proxy "%s";\n' "$APT_PROXY" > /etc/apt/apt.conf.d/91lab-proxy
fi
# A registry's Debian image empties the lists and caches after each call of apt; a host keeps them.
rm -f /etc/apt/apt.conf.d/docker-*

# The lists stay in the image, so that a host can install packages without an update.
apt-get update -q
# shellcheck disable=SC2086  # a list of words
apt-get install -q -y --no-install-recommends $PACKAGES
apt-get clean
update-ca-certificates

# Units with nothing to do in a container, and timers that would wake every host at the same time.
systemctl mask \
    apt-daily.timer apt-daily-upgrade.timer console-getty.service dev-hugepages.mount dpkg-db-backup.timer \
    e2scrub_all.timer e2scrub_reap.service fstrim.timer getty.target getty-static.service getty@.service \
    kmod-static-nodes.service ldconfig.service man-db.timer modprobe@.service proc-sys-fs-binfmt_misc.automount \
    serial-getty@.service sys-fs-fuse-connections.mount sys-kernel-config.mount sys-kernel-debug.mount \
    sys-kernel-tracing.mount systemd-ask-password-console.path systemd-ask-password-wall.path \
    systemd-firstboot.service systemd-hwdb-update.service systemd-journal-catalog-update.service \
    systemd-journal-flush.service systemd-logind.service systemd-machine-id-commit.service \
    systemd-modules-load.service systemd-networkd-wait-online.service systemd-pcrphase.service \
    systemd-pstore.service systemd-random-seed.service systemd-remount-fs.service systemd-rfkill.socket \
    systemd-tmpfiles-setup-dev.service systemd-tmpfiles-setup-dev-early.service systemd-udev-settle.service \
    systemd-udev-trigger.service systemd-udevd-control.socket systemd-udevd-kernel.socket systemd-udevd.service \
    systemd-update-done.service systemd-update-utmp.service
systemctl set-default multi-user.target

mkdir -p /etc/systemd/journald.conf.d
cat > /etc/systemd/journald.conf.d/lab.conf << 'EOF'
[Journal]
Storage=volatile
RuntimeMaxUse=32M
EOF

# Every host makes its own key at its first boot: keys in the image would be the same for all.
rm -f /etc/ssh/ssh_host_*
cat > /etc/systemd/system/lab-ssh-key.service << 'EOF'
[Unit]
Description=SSH host key of this lab host
ConditionPathExists=!/etc/ssh/ssh_host_ed25519_key
Before=ssh.service

[Service]
Type=oneshot
ExecStart=/usr/bin/ssh-keygen -q -t ed25519 -N "" -f /etc/ssh/ssh_host_ed25519_key

[Install]
RequiredBy=ssh.service
EOF
cat > /etc/ssh/sshd_config.d/00-lab.conf << 'EOF'
HostKey /etc/ssh/ssh_host_ed25519_key
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
UseDNS no
PrintMotd no
EOF
systemctl enable ssh.service lab-ssh-key.service
install -d -m 700 /root/.ssh

# Empty, not missing: systemd then makes a new id without taking the boot for a first one.
: > /etc/machine-id
rm -f /var/lib/dbus/machine-id /usr/sbin/policy-rc.d
# Apt's own caches, made now: a host's first use of apt would spend a second and 80 MB on them.
apt-cache gencaches
rm -rf /var/log/*.log /var/log/apt /tmp/* /var/tmp/*
