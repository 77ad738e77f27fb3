# Works on one message, which is its standard input; exits 0 so that the message is acknowledged.
read -r item || [ -n "$item" ]
echo "Processing $item"
sleep "$WORK_SECONDS"
