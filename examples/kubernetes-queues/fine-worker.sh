# Takes items off the list job2 until nobody has any; each is leased and moved aside while it is worked on.
redis() {
    redis-cli -u "$REDIS_URL" --raw "$@"
}

until [ "$(redis LLEN job2) $(redis LLEN job2:processing)" = "0 0" ]; do
    item=$(redis BLMOVE job2 job2:processing RIGHT LEFT 2)
    if [ -z "$item" ]; then
        echo "Waiting for work"
        continue
    fi
    redis SET "job2:leased:$item" "$$" EX 10 >/dev/null
    echo "Working on $item"
    sleep "$WORK_SECONDS"
    redis LREM job2:processing 0 "$item" >/dev/null
    redis DEL "job2:leased:$item" >/dev/null
done
echo "Queue empty, exiting"
