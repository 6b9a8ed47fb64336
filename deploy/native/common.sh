# The paths and functions that the scripts of this folder share. Source this file in bash, do not run it.

checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)

KAFKA_VERSION=4.3.1
kafka_libs=${XDG_CACHE_HOME:-$HOME/.cache}/netagg/kafka-$KAFKA_VERSION/libs

say() { echo "native: $*" >&2; }
die() { say "$*"; exit 1; }

# Prints a setting: from the environment, else from the checkout's .env, else the default.
setting() { # NAME DEFAULT
  local value=${!1-}
  [ -n "$value" ] || value=$(from_env_file "$1")
  printf '%s\n' "${value:-$2}"
}

# Prints the value of the last line for a name in .env, as the programs read it: bins/src/process/env_file.rs has the rules.
from_env_file() { # NAME
  local line value='' quote
  [ -f "$checkout/.env" ] || return 0
  while IFS= read -r line || [ -n "$line" ]; do
    line=${line#$'\xef\xbb\xbf'}
    line=${line%$'\r'}
    [[ $line =~ ^[[:blank:]]*(export[[:blank:]]+)?$1[[:blank:]]*=(.*)$ ]] || continue
    value=${BASH_REMATCH[2]}
    for quote in \" \'; do
      # A value without inner quotes, else a value up to the last quote.
      if [[ $value =~ ^[[:blank:]]*$quote([^$quote]*)$quote[[:blank:]]*([[:blank:]]#.*)?$ ]] ||
        [[ $value =~ ^[[:blank:]]*$quote(.*)$quote[[:blank:]]*([[:blank:]]#.*)?$ ]]; then
        value=${BASH_REMATCH[1]}
        continue 2
      fi
    done
    while [[ $value =~ ^(.*)[[:blank:]]#.*$ ]]; do value=${BASH_REMATCH[1]}; done
    value=${value#"${value%%[![:blank:]]*}"}
    value=${value%"${value##*[![:blank:]]}"}
  done <"$checkout/.env"
  printf '%s' "$value"
}

# Prints the folder of PostgreSQL's server programs. On Debian they are not in PATH, and the newest version is used.
postgres_bin() {
  local initdb
  initdb=$( (command -v initdb || ls -d /usr/lib/postgresql/*/bin/initdb | sort -t/ -k5 -n | tail -n 1) 2>/dev/null)
  [ -n "$initdb" ] && dirname "$(readlink -f "$initdb")"
}

# PostgreSQL refuses to run as root, so root runs it as the user postgres. Unlike su or runuser, setpriv replaces itself with
# the command. So its process id is the process id of PostgreSQL.
as_postgres() {
  if [ "$(id -u)" = 0 ]; then
    exec setpriv --reuid=postgres --regid=postgres --init-groups -- "$@"
  else
    exec "$@"
  fi
}

java_17() { # whether Java 17 or later is installed
  local major
  major=$(java -version 2>&1 | sed -n 's/.* version "\([0-9]*\).*/\1/p')
  [ "${major:-0}" -ge 17 ]
}

kafka_tool() { # CLASS ARGUMENT...
  java -Xmx256m -XX:TieredStopAtLevel=1 -cp "$kafka_libs/*" "$@"
}

# Prints the folder for the data of `up`. For root, the folder is below /var/lib/netagg if the user postgres may not enter the
# checkout, for example inside a home folder.
data_folder() {
  if [ "$(id -u)" = 0 ] && id postgres >/dev/null 2>&1 &&
    ! (as_postgres test -x "$checkout") 2>/dev/null; then
    echo "/var/lib/netagg/$(cksum <<<"$checkout" | cut -d' ' -f1)"
  else
    echo "$checkout/.netagg"
  fi
}

services=(postgres redis kafka)
postgres_port=$(setting POSTGRES_PORT 5432)
redis_port=$(setting REDIS_PORT 6379)
kafka_port=$(setting KAFKA_PORT 9092)
port_of() { local name=${1}_port; echo "${!name}"; }

something_listens() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

answers() { # SERVICE: whether it accepts a connection and responds in its protocol
  case $1 in
    postgres) "$(postgres_bin)/pg_isready" -q -h 127.0.0.1 -p "$postgres_port" ;;
    redis) [ "$(redis-cli -h 127.0.0.1 -p "$redis_port" ping 2>/dev/null)" = PONG ] ;;
    kafka)
      something_listens "$kafka_port" &&
        kafka_tool org.apache.kafka.tools.BrokerApiVersionsCommand \
          --bootstrap-server "127.0.0.1:$kafka_port" >/dev/null 2>&1
      ;;
  esac
}

# Prints the process id of a server that `up` started and that still runs. It also compares the command, because after a reboot
# another process may have this id.
running() { # SERVICE
  local pid
  pid=$(cat "$data/$1.pid" 2>/dev/null) || return 1
  case $(ps -o args= -p "$pid" 2>/dev/null) in
    *postgres*"$data/postgres"* | *redis-server*":$redis_port"* | *kafka.Kafka*"$data/kafka"*) echo "$pid" ;;
    *) return 1 ;;
  esac
}
