# The stand-in for gmag11/metatrader5_vnc with Debian's real Wine in it. What Wine can do here, Wine does;
# what cannot be had (installers, the Python in Wine) is stood in for, and Notepad is MetaTrader.
# Context: tests/integration/terminal_image/standins.
ARG STANDIN
FROM ${STANDIN}
RUN DEBIAN_FRONTEND=noninteractive && export DEBIAN_FRONTEND \
    && rm -f /etc/apt/sources.list.d/ended.list /usr/bin/wineserver && mv /usr/bin/wine /usr/bin/wine.standin \
    && apt-get update -qq && apt-get install -y -qq --no-install-recommends procps wine wine64 \
    && rm -rf /var/lib/apt/lists/*
RUN real="$(readlink -f /usr/bin/wine)" && mv "$real" /usr/bin/wine.real && rm /usr/bin/wine \
    && sed -i 's/Path(sys.argv\[0\]).name == "wine"/True/' /usr/bin/wine.standin
COPY real_wine.py /tmp/
RUN { echo '#!/usr/bin/python3'; cat /tmp/real_wine.py; } > /usr/bin/wine && chmod 755 /usr/bin/wine
