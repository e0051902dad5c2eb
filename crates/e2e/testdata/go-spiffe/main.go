// A SPIFFE program as its users write it, with go-spiffe and nothing of ours: the socket of the Workload API comes from
// SPIFFE_ENDPOINT_SOCKET.
//
//	go-spiffe watch COUNT          prints so many identities as they come, one JSON object per line
//	go-spiffe serve PEER REQUESTS  lets in PEER alone by mutual TLS; prints its address, then who called
//	go-spiffe call ADDRESS PEER    calls PEER alone by mutual TLS; prints the answer
package main

import (
	"bufio"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
)

// patience bounds everything: a test must end.
const patience = 60 * time.Second

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	switch {
	case len(args) == 2 && args[0] == "watch":
		count, err := strconv.Atoi(args[1])
		if err != nil {
			return err
		}
		return watch(ctx, count)
	case len(args) == 3 && args[0] == "serve":
		requests, err := strconv.Atoi(args[2])
		if err != nil {
			return err
		}
		return serve(ctx, args[1], requests)
	case len(args) == 3 && args[0] == "call":
		return call(ctx, args[1], args[2])
	}
	return errors.New("watch COUNT | serve PEER REQUESTS | call ADDRESS PEER")
}

// watcher prints the identities that it hears of.
type watcher struct {
	left int
	done context.CancelFunc
	err  error
}

func (w *watcher) OnX509ContextUpdate(update *workloadapi.X509Context) {
	if w.left == 0 {
		return
	}
	w.left--
	if w.err = told(update); w.err != nil || w.left == 0 {
		w.left = 0
		w.done()
	}
}

func (w *watcher) OnX509ContextWatchError(err error) {
	if w.left == 0 {
		return // That is our own end.
	}
	fmt.Fprintln(os.Stderr, "watching:", err)
}

func told(update *workloadapi.X509Context) error {
	svid := update.DefaultSVID()
	bundle, err := update.Bundles.GetX509BundleForTrustDomain(svid.ID.TrustDomain())
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	for _, root := range bundle.X509Authorities() {
		roots.AddCert(root)
	}
	leaf := svid.Certificates[0]
	usages := []x509.ExtKeyUsage{x509.ExtKeyUsageAny}
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: usages}); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(map[string]any{
		"id":     svid.ID.String(),
		"serial": leaf.SerialNumber.Text(16),
		"roots":  len(bundle.X509Authorities()),
	})
}

func watch(ctx context.Context, count int) error {
	ctx, done := context.WithCancel(ctx)
	watcher := &watcher{left: count, done: done}
	err := workloadapi.WatchX509Context(ctx, watcher)
	if watcher.err != nil {
		return watcher.err
	}
	if watcher.left > 0 {
		return err
	}
	return nil
}

func serve(ctx context.Context, peer string, requests int) error {
	id, err := spiffeid.FromString(peer)
	if err != nil {
		return err
	}
	listener, err := spiffetls.Listen(ctx, "tcp", "127.0.0.1:0", tlsconfig.AuthorizeID(id))
	if err != nil {
		return err
	}
	defer listener.Close()
	fmt.Println(listener.Addr())
	for range requests {
		connection, err := listener.Accept()
		if err != nil {
			return err
		}
		if err := answer(connection); err != nil {
			fmt.Println("refused:", err)
		}
	}
	return nil
}

func answer(connection net.Conn) error {
	defer connection.Close()
	if err := connection.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	asked, err := bufio.NewReader(connection).ReadString('\n')
	if err != nil {
		return err
	}
	peer, err := spiffetls.PeerIDFromConn(connection)
	if err != nil {
		return err
	}
	fmt.Println("called by", peer)
	_, err = fmt.Fprintf(connection, "%s says %s", peer, asked)
	return err
}

func call(ctx context.Context, address, peer string) error {
	id, err := spiffeid.FromString(peer)
	if err != nil {
		return err
	}
	connection, err := spiffetls.Dial(ctx, "tcp", address, tlsconfig.AuthorizeID(id))
	if err != nil {
		return err
	}
	defer connection.Close()
	if err := connection.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if _, err := fmt.Fprintln(connection, "hello"); err != nil {
		return err
	}
	reply, err := bufio.NewReader(connection).ReadString('\n')
	if err != nil {
		return err
	}
	fmt.Print(reply)
	return nil
}
