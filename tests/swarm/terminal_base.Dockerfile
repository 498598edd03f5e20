# Stands in for gmag11/metatrader5_vnc: a Debian with what that image is known to have, and stand-ins for
# Wine and what runs in it. Context: tests/integration/terminal_image/standins.
ARG DEBIAN=base-trixie
FROM ${DEBIAN}
RUN apt-get update -qq \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        ca-certificates openssl python3 python3-pip sudo \
    && rm -rf /var/lib/apt/lists/*
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    python3 -m pip install --quiet --break-system-packages --root-user-action=ignore --no-deps rpyc==5.2.3
COPY wine.py /usr/bin/wine
COPY MetaTrader5.py /usr/module/
RUN { echo '#!/usr/bin/python3'; cat /usr/bin/wine; } > /tmp/wine && mv /tmp/wine /usr/bin/wine \
    && chmod 755 /usr/bin/wine && ln /usr/bin/wine /usr/bin/wineserver && mkdir /usr/plans \
    && useradd -u 911 -U -d /config -s /bin/false abc \
    && useradd -u 1000 -U -d /home/kasm-user -s /bin/bash kasm-user && usermod -aG sudo kasm-user \
    && mkdir -p /config \
    && echo 'deb http://no-such-host.invalid/debian trixie main' > /etc/apt/sources.list.d/ended.list
ENV HOME=/config WINEPREFIX=/config/.wine DISPLAY=:1
EXPOSE 3000 8001
VOLUME /config
ENTRYPOINT ["/init"]
