# Supervises one native server for a test process. Run as: sh -c THIS supervisor FOLDER STOP_SIGNAL CRASH_SIGNAL COMMAND...
#
# Standard input is a pipe that the test process alone holds. Each line is an order, answered by one line. When the
# pipe closes, the test process has ended, whatever way: the server is killed and its folder removed.
folder=$1 stop=$2 crash=$3
shift 3
pid=
mkdir -p "$folder"
chmod 755 "$folder" # PostgreSQL's user must be able to enter

all() { # the server and its children: a hung PostgreSQL is more than its first process
  # itself first, so that it makes no more of them; one that ends meanwhile is no failure
  kill -s "$1" "$pid" 2>/dev/null
  # shellcheck disable=SC2046
  kill -s "$1" $(pgrep -P "$pid") 2>/dev/null
  return 0
}

alive() {
  case $(ps -o stat= -p "$pid" 2>/dev/null) in '' | Z*) return 1 ;; esac
}

end() { # by SIGNAL; a paused server hears it too
  [ -n "$pid" ] || return 0
  all CONT
  kill -s "$1" "$pid" 2>/dev/null
  wait "$pid"
  pid=
}

trap 'exit 1' HUP INT TERM
trap 'end "$crash"; rm -rf "$folder"' EXIT

while read -r order; do
  case $order in
    start) "$@" >>"$folder/log" 2>&1 </dev/null & pid=$! ;;
    stop) end "$stop" ;;
    crash) end "$crash" ;;
    pause) all STOP && alive ;;
    resume) all CONT && alive ;;
    alive) alive ;;
  esac && echo ok || echo failed
done
