# Runs inside a bare host's image, as root, in bash: installs the roles' packages and leaves every service disabled.
# Given: PACKAGES.
export DEBIAN_FRONTEND=noninteractive

enabled() {
    systemctl --root=/ list-unit-files --state=enabled --no-legend | awk '{print $1}' | sort
}

printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d
chmod 755 /usr/sbin/policy-rc.d
before=$(enabled)
apt-get update -q
# shellcheck disable=SC2086  # a list of words
apt-get install -q -y --no-install-recommends $PACKAGES
apt-get clean

# What the packages have enabled is for the roles to enable: a service that runs by accident would hide their bugs.
for unit in $(comm -13 <(printf '%s\n' "$before") <(enabled)); do
    systemctl disable "$unit"
done

: > /etc/machine-id
rm -f /usr/sbin/policy-rc.d
# Apt's own caches, made now: a host's first use of apt would spend a second and 80 MB on them.
apt-cache gencaches
rm -rf /var/log/*.log /var/log/apt /tmp/* /var/tmp/*
