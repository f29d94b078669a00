# A machine of the lab with what makes it a real one: a kernel, and what a container has no use for.
ARG MACHINE
FROM ${MACHINE}

# The initial RAM disk has the modules that a virtual machine needs, instead of those that this build sees.
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
      initramfs-tools kmod linux-image-cloud-amd64 systemd-timesyncd udev zstd \
 && rm -rf /var/lib/apt/lists/*

# The network card alone, by its name: what Docker makes for containers is of the type ether too, and not networkd's to set up.
RUN find /etc/systemd/system -maxdepth 1 -lname /dev/null -delete \
 && systemctl mask systemd-firstboot.service \
 && systemctl enable systemd-networkd.service \
 && printf '%s\n' '[Match]' 'Name=en*' '[Network]' 'DHCP=ipv4' > /etc/systemd/network/card.network \
 && echo '/dev/vda / ext4 errors=remount-ro 0 1' > /etc/fstab
