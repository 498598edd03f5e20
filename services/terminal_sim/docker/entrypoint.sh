#!/bin/sh
# The environment of the terminal image, turned into options of `terminal-sim serve`.
# Further options of serve may follow; another command of terminal-sim is run as it stands.
set -euf

refuse() {
    echo "mt5-terminal-sim: $1" >&2
    exit 2
}

export TERMINAL_SIM_KEY_FILE="${SUPERVISOR_KEY_FILE}"
case "${1:-}" in
    "" | -*) ;;
    # Asked every few seconds, so it is a program of its own that starts fast.
    health) exec /opt/mt5/bin/python -m terminal_sim.cli.wellness ;;
    *) exec terminal-sim "$@" ;;
esac

terminals="${MT5_TERMINALS}"
brokers="${MT5_BROKERS}"
own=yes
case "${MT5_ROLE}" in
    all) ;;
    broker)
        terminals=0
        brokers=
        ;;
    terminal)
        own=
        [ -n "${brokers}" ] || refuse "MT5_ROLE=terminal wants MT5_BROKERS, such as Demo=broker:8200"
        ;;
    *) refuse "MT5_ROLE is all, broker or terminal, not ${MT5_ROLE}" ;;
esac

# Terminals alone learn from it which faults are planned, and passwords of accounts.
[ -z "${MT5_SCENARIO}" ] || set -- --scenario "${MT5_SCENARIO}" "$@"
if [ -n "${own}" ]; then
    [ -z "${MT5_DATA_DIR}" ] || set -- --data-dir "${MT5_DATA_DIR}" "$@"
    set -- --broker-port 8200 "$@"
fi
IFS=,
for broker in ${brokers}; do
    set -- "$@" --broker "${broker}"
done
unset IFS

exec terminal-sim serve --host 0.0.0.0 --terminals "${terminals}" --port-base 8001 \
    --control-port 8100 --key-file "${SUPERVISOR_KEY_FILE}" \
    --drain-seconds "${MT5_DRAIN_S}" "$@"
