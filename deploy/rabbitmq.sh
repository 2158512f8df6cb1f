#!/bin/bash
# A RabbitMQ for development on 127.0.0.1:5672.   deploy/rabbitmq.sh start | stop      (make rabbitmq, make rabbitmq-stop)
#
# start takes the first of these that works, and says which:
#   1. the broker that answers there already
#   2. the program rabbitmq-server, as a node of its own: own name, own data, open to this machine only
#   3. the same after apt-get install (root on Debian and Ubuntu)
#   4. a Docker container
#   5. none: it says how to get one, and ends with status 1
#
# RABBITMQ_NODE_PORT=5673 takes another port; the data lie in ~/.local/state/ecommerce-worker.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
port=${RABBITMQ_NODE_PORT:-5672}
state=${HOME:-/tmp}/.local/state/ecommerce-worker/rabbitmq-$port
node=ecommerce-worker-$port@localhost
container=ecommerce-worker-rabbitmq-$port
image=${RABBITMQ_IMAGE:-rabbitmq:3.13}
patience=90             # seconds; a first start on a small machine takes up to half a minute

# Whether something that speaks AMQP answers: it greets a client's header with a frame of type 1. The descriptor is closed
# with the subshell.
answers() {
    (
        exec 3<>"/dev/tcp/127.0.0.1/$port"
        printf 'AMQP\0\0\011\001' >&3
        IFS= read -r -t 5 -n 1 first <&3
        [ "$first" = $'\001' ]
    ) 2>/dev/null
}

# Whether anything at all listens on that port of the loopback interface.
listens() {
    (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

# The program itself, where it is. Debian's one in /usr/sbin is a wrapper that lets only root start the system's own node.
program() {
    local directory
    for directory in /usr/lib/rabbitmq/bin /usr/local/sbin /opt/homebrew/sbin; do
        if [ -x "$directory/$1" ]; then
            echo "$directory/$1"
            return 0
        fi
    done
    command -v "$1"
}

# Everything that makes it a node of its own, for the server and for rabbitmqctl alike. HOME is where Erlang keeps the
# cookie that lets one into the node. Settings of the system's RabbitMQ, or from the caller's environment, stay out.
private_node() {
    local name
    for name in $(compgen -e RABBITMQ_ || true); do
        unset "$name"
    done
    export HOME=$state
    export ERL_EPMD_ADDRESS=127.0.0.1
    export RABBITMQ_NODENAME=$node
    export RABBITMQ_NODE_IP_ADDRESS=127.0.0.1
    export RABBITMQ_NODE_PORT=$port
    export RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS='-kernel inet_dist_use_interface {127,0,0,1}'
    export RABBITMQ_CONF_ENV_FILE=$state/rabbitmq-env.conf
    export RABBITMQ_CONFIG_FILE=$state/rabbitmq
    export RABBITMQ_ADVANCED_CONFIG_FILE=$state/advanced
    export RABBITMQ_ENABLED_PLUGINS_FILE=$state/enabled_plugins
    export RABBITMQ_MNESIA_BASE=$state/data
    export RABBITMQ_LOG_BASE=$state/log
    export RABBITMQ_PID_FILE=$state/pid
}

ready() {
    echo "RabbitMQ: $1"
    echo "  address  amqp://guest:guest@127.0.0.1:$port//"
    echo "  stop     $2"
}

# The command that stops what this script started, as one would type it.
stop_command() {
    if [ "$port" = 5672 ]; then
        echo 'make rabbitmq-stop'
    else
        echo "make rabbitmq-stop RABBITMQ_NODE_PORT=$port"
    fi
}

# Waits until the broker answers. $1 is the process that must live meanwhile; empty: nobody to watch.
wait_until_it_answers() {
    local until_second=$((SECONDS + patience))
    until answers; do
        if [ "$SECONDS" -ge "$until_second" ] || { [ -n "$1" ] && ! kill -0 "$1" 2>/dev/null; }; then
            return 1
        fi
        sleep 0.5
    done
}

# Whether the node that was started from here runs. After a restart of the machine its number may be somebody else's.
runs() {
    [ -f "$state/process" ] && ps -p "$(cat "$state/process")" -o args= 2>/dev/null | grep -q rabbitmq
}

end_node() {
    local pid last=$((SECONDS + patience))
    pid=$(cat "$state/process")
    echo "stopping $node ..."
    kill -TERM "$pid" 2>/dev/null || true
    while kill -0 "$pid" 2>/dev/null; do
        if [ "$SECONDS" -ge "$last" ]; then
            echo "Process $pid does not end; its log is in $state/log." >&2
            return 1
        fi
        sleep 0.2
    done
    rm -f "$state/process"
    if [ -f "$state/epmd-is-ours" ]; then
        epmd -kill >/dev/null 2>&1 || true      # it refuses while any node is registered with it
        rm -f "$state/epmd-is-ours"
    fi
}

start_node() {
    local server log=$state/log/startup.log pid
    server=$(program rabbitmq-server) || return 1
    mkdir -p "$state/log" "$state/data" && chmod 700 "$state" || return 2
    echo "starting $server ..."

    # Erlang's name server is shared by all nodes of a machine and outlives them; stop ends it only if it came with us.
    rm -f "$state/epmd-is-ours"
    if ! listens 4369; then
        touch "$state/epmd-is-ours"
    fi

    # A process group of its own (set -m) and no terminal: Ctrl-C and closing the terminal are not meant for the broker.
    set -m
    (
        private_node
        exec nohup "$server" </dev/null >"$log" 2>&1
    ) &
    pid=$!
    set +m
    disown "$pid"
    echo "$pid" >"$state/process"          # now: who presses Ctrl-C while it starts can still stop it

    if ! wait_until_it_answers "$pid"; then
        end_node >/dev/null || true
        tail -n 30 "$log" >&2
        echo "rabbitmq-server did not come up (see above, and $state/log)." >&2
        return 2
    fi
    ready "started; this machine only, data and logs in $state" "$(stop_command)"
}

start_container() {
    command -v docker >/dev/null 2>&1 || return 1
    if ! docker info >/dev/null 2>&1; then
        echo 'Docker is installed, but its daemon does not answer.' >&2
        return 1
    fi
    echo "starting $image in Docker ..."
    if docker container inspect "$container" >/dev/null 2>&1; then
        docker start "$container" >/dev/null
    else
        docker run --detach --name "$container" --hostname "$container" --publish "127.0.0.1:$port:5672" "$image" >/dev/null
    fi
    if ! wait_until_it_answers ''; then
        docker logs --tail 30 "$container" >&2
        echo "The container $container did not come up (see above)." >&2
        return 2
    fi
    ready "started in the container $container" "$(stop_command)"
}

how_to_get_one() {
    echo 'No RabbitMQ here, and no way to get one without you. One of these does it:' >&2
    case $(uname -s) in
        Darwin)
            echo '  brew install rabbitmq                    then: make rabbitmq' >&2
            ;;
        *)
            if command -v apt-get >/dev/null 2>&1; then
                echo '  sudo deploy/install.sh rabbitmq-server   then: make rabbitmq' >&2
            else
                echo '  the package rabbitmq-server of this system  then: make rabbitmq' >&2
            fi
            ;;
    esac
    echo '  Docker, with its daemon running          then: make rabbitmq' >&2
    echo '  a RabbitMQ elsewhere                     named by the setting BROKER_URL' >&2
}

start() {
    local status=0
    if answers; then
        if runs; then
            ready "runs already; data and logs in $state" "$(stop_command)"
        else
            ready "one answers already (it was not started from here)" 'the way it was started'
        fi
        return 0
    fi
    if listens "$port"; then
        echo "Port $port is taken by something that is no RabbitMQ: make rabbitmq RABBITMQ_NODE_PORT=5673" >&2
        return 1
    fi

    start_node || status=$?
    [ "$status" -eq 1 ] || return "$status"         # 1: no such program here; anything else: it is there, that is the answer

    # Quietly where it cannot: the next ways follow, and then what to do.
    if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null 2>&1 && "$here/install.sh" rabbitmq-server; then
        start_node
        return
    fi

    status=0
    start_container || status=$?
    [ "$status" -eq 1 ] || return "$status"

    how_to_get_one
    return 1
}

stop() {
    local stopped=
    if runs; then
        end_node
        stopped=yes
    fi
    if command -v docker >/dev/null 2>&1 && [ -n "$(docker ps -q --filter "name=^$container\$" 2>/dev/null)" ]; then
        echo "stopping the container $container ..."
        docker stop "$container" >/dev/null
        stopped=yes
    fi
    if [ -n "$stopped" ]; then
        echo 'RabbitMQ: stopped; its queues are kept for the next start.'
    else
        echo "Nothing to stop: no RabbitMQ on port $port was started from here."
    fi
}

case ${1:-start} in
    start) start ;;
    stop) stop ;;
    *)
        echo "usage: $0 start | stop" >&2
        exit 2
        ;;
esac
