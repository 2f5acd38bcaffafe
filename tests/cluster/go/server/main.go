// Server is the workload: it answers HTTP and UDP with who answered and who asked.
//
//	server [-http ADDRESS]... [-udp ADDRESS]...
//
// Every answer is one line, `pod=web-1 node=node-a from=10.244.1.5:40000`. `/say/TEXT` adds the
// text, a UDP answer adds the question; `/bytes/N` answers N bytes, for what is larger than a
// packet.
package main

import (
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
)

type addresses []string

func (list *addresses) String() string { return strings.Join(*list, ",") }

func (list *addresses) Set(address string) error {
	*list = append(*list, address)
	return nil
}

// Who is in words; the names come from the pod's fields by way of its environment.
func who(from string) string {
	pod := os.Getenv("POD")
	if pod == "" {
		pod, _ = os.Hostname()
	}
	return fmt.Sprintf("pod=%s node=%s from=%s", pod, os.Getenv("NODE"), from)
}

func answer(w http.ResponseWriter, r *http.Request) {
	what, argument, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	switch what {
	case "say":
		fmt.Fprintln(w, who(r.RemoteAddr), argument)
	case "bytes":
		count, err := strconv.Atoi(argument)
		if err != nil || count < 0 {
			http.Error(w, "/bytes/N", http.StatusBadRequest)
			return
		}
		io.WriteString(w, strings.Repeat("k", count))
	default:
		fmt.Fprintln(w, who(r.RemoteAddr))
	}
}

func serveUDP(socket net.PacketConn) error {
	question := make([]byte, 65536)
	for {
		length, from, err := socket.ReadFrom(question)
		if err != nil {
			return err
		}
		told := strings.TrimRight(who(from.String())+" "+string(question[:length]), " \n")
		// A refused answer (the asker has gone) is the asker's loss.
		socket.WriteTo([]byte(told+"\n"), from)
	}
}

func main() {
	var web, udp addresses
	flag.Var(&web, "http", "answer HTTP on this ADDRESS:PORT; may be repeated")
	flag.Var(&udp, "udp", "answer datagrams on this ADDRESS:PORT; may be repeated")
	flag.Parse()
	failed := make(chan error)
	for _, address := range web {
		go func() { failed <- http.ListenAndServe(address, http.HandlerFunc(answer)) }()
	}
	for _, address := range udp {
		socket, err := net.ListenPacket("udp", address)
		if err != nil {
			log.Fatal(err)
		}
		go func() { failed <- serveUDP(socket) }()
	}
	log.Fatal(<-failed)
}
