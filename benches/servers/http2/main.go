// SPDX-License-Identifier: Apache-2.0

// Command http2 answers requests in HTTP/2 without TLS, or calls of gRPC, and asks for them.
//
// Usage: http2 http|grpc PORT
//
//	http2 load http|grpc PORT SECONDS CONNECTIONS STREAMS
//
// A load has STREAMS requests at once on each connection; it prints how many were answered, in how
// many seconds.
package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/h2c"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

const method = "/bench.Shop/Get"

var answer = []byte(`{"status": "ok", "id": 123}`)

// raw hands messages over as they are.
type raw struct{}

func (raw) Marshal(v any) ([]byte, error) { return *v.(*[]byte), nil }
func (raw) Unmarshal(data []byte, v any) error {
	*v.(*[]byte) = append([]byte(nil), data...)
	return nil
}
func (raw) Name() string { return "proto" }

func serve(kind, address string) error {
	if kind == "http" {
		handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.Write(answer)
		})
		return http.ListenAndServe(address, h2c.NewHandler(handler, &http2.Server{}))
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	handle := func(_ any, stream grpc.ServerStream) error {
		var message []byte
		if err := stream.RecvMsg(&message); err != nil {
			return err
		}
		return stream.SendMsg(&answer)
	}
	return grpc.NewServer(grpc.ForceServerCodec(raw{}), grpc.UnknownServiceHandler(handle)).Serve(listener)
}

// asker gives what makes one request on a connection of its own, with a number in its path.
func asker(kind, address string) func(int) error {
	if kind == "grpc" {
		connection, err := grpc.Dial(address, grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithDefaultCallOptions(grpc.ForceCodec(raw{})))
		if err != nil {
			log.Fatal(err)
		}
		return func(number int) error {
			var got []byte
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			return connection.Invoke(ctx, method, &answer, &got)
		}
	}
	client := &http.Client{Transport: &http2.Transport{AllowHTTP: true,
		DialTLSContext: func(_ context.Context, network, address string, _ *tls.Config) (net.Conn, error) {
			return net.Dial(network, address)
		}}}
	return func(number int) error {
		response, err := client.Get(fmt.Sprintf("http://%s/users/%d", address, number))
		if err != nil {
			return err
		}
		defer response.Body.Close()
		_, err = io.Copy(io.Discard, response.Body)
		return err
	}
}

func load(kind, address string, seconds, connections, streams int) {
	var answered atomic.Int64
	var group sync.WaitGroup
	began := time.Now()
	until := began.Add(time.Duration(seconds) * time.Second)
	for i := 0; i < connections; i++ {
		ask := asker(kind, address)
		for j := 0; j < streams; j++ {
			group.Add(1)
			go func() {
				defer group.Done()
				for number := 0; time.Now().Before(until); number++ {
					if err := ask(number); err != nil {
						log.Fatal(err)
					}
					answered.Add(1)
				}
			}()
		}
	}
	group.Wait()
	fmt.Println(answered.Load(), time.Since(began).Seconds())
}

func main() {
	if os.Args[1] != "load" {
		log.Fatal(serve(os.Args[1], "127.0.0.1:"+os.Args[2]))
	}
	var numbers [3]int
	for i := range numbers {
		numbers[i], _ = strconv.Atoi(os.Args[4+i])
	}
	load(os.Args[2], "127.0.0.1:"+os.Args[3], numbers[0], numbers[1], numbers[2])
}
