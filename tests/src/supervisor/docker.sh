# Supervises one container for a test process. Run as: sh -c THIS supervisor NAME
#
# Standard input is a pipe that the test process alone holds. Each line is an order, answered by one line. When the
# pipe closes, the test process has ended, whatever way: the container and its volumes are removed.
name=$1

remove() { # the engine may still be making it, by a request sent just before the end: then it shows up a little later
  for _ in 1 2 3 4 5 6 7 8 9 10; do
    docker inspect "$name" >/dev/null 2>&1 && docker rm -fv "$name" >/dev/null 2>&1 && return
    sleep 0.5
  done
}

trap 'exit 1' HUP INT TERM
trap remove EXIT

while read -r order; do
  case $order in
    start) docker start "$name" ;;
    stop) docker stop -t 30 "$name" ;;
    crash) docker kill "$name" ;;
    pause) docker pause "$name" ;;
    resume) docker unpause "$name" ;;
    alive) [ "$(docker inspect --format '{{.State.Running}}' "$name")" = true ] ;;
  esac >/dev/null 2>&1 && echo ok || echo failed
done
