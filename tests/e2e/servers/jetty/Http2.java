// SPDX-License-Identifier: Apache-2.0

import jakarta.servlet.http.HttpServletRequest;
import jakarta.servlet.http.HttpServletResponse;
import java.io.EOFException;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.OutputStream;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import org.eclipse.jetty.http2.parser.RateControl;
import org.eclipse.jetty.http2.server.HTTP2CServerConnectionFactory;
import org.eclipse.jetty.server.HttpConfiguration;
import org.eclipse.jetty.server.HttpConnectionFactory;
import org.eclipse.jetty.server.Request;
import org.eclipse.jetty.server.Server;
import org.eclipse.jetty.server.ServerConnector;
import org.eclipse.jetty.server.handler.AbstractHandler;

/** Jetty, HTTP/1 and HTTP/2 without TLS. Usage: java -cp DIR:DIR/* Http2 PORT; log in $ACCESS_LOG. */
public final class Http2 extends AbstractHandler {
    private static final byte[] BIG = new byte[200_000];
    private final FileOutputStream log;

    private Http2(FileOutputStream log) {
        this.log = log;
    }

    public static void main(String[] arguments) throws Exception {
        Arrays.fill(BIG, (byte) 'b');
        Server server = new Server();
        HttpConfiguration configuration = new HttpConfiguration();
        HTTP2CServerConnectionFactory http2 = new HTTP2CServerConnectionFactory(configuration);
        // It gathers the frames of all streams into one write, of which 192 vectors are read.
        http2.setMaxConcurrentStreams(10);
        http2.setRateControlFactory(new RateControl.Factory() { }); // any number of small frames
        ServerConnector connector = new ServerConnector(server,
                new HttpConnectionFactory(configuration), http2);
        connector.setHost("127.0.0.1");
        connector.setPort(Integer.parseInt(arguments[0]));
        server.addConnector(connector);
        server.setHandler(new Http2(new FileOutputStream(System.getenv("ACCESS_LOG"), true)));
        server.start();
        server.join();
    }

    @Override
    public void handle(String target, Request base, HttpServletRequest request,
            HttpServletResponse response) throws IOException {
        long started = System.nanoTime();
        int peer = request.getRemotePort(); // as long as there is one
        base.setHandled(true);
        String[] path = target.split("/");
        byte[] body = request.getInputStream().readAllBytes();
        int sent;
        switch (path[1]) {
            case "status":
                int status = Integer.parseInt(path[2]);
                boolean bodiless = status == 204 || status == 304;
                sent = answer(request, response, status, text(bodiless ? "" : "status\n"));
                break;
            case "echo":
                sent = answer(request, response, 200, body);
                break;
            case "upload":
                sent = answer(request, response, 200, text(body.length + "\n"));
                break;
            case "chunked":
                sent = answerInPieces(response, 5);
                break;
            case "big":
                sent = answer(request, response, 200, BIG);
                break;
            case "slow":
                pause(20);
                sent = answer(request, response, 200, text("slow\n"));
                break;
            default:
                boolean deleted = request.getMethod().equals("DELETE");
                String item = deleted ? "" : "item " + path[path.length - 1] + "\n";
                sent = answer(request, response, deleted ? 204 : 200, text(item));
        }
        record(request, peer, response.getStatus(), body.length, sent, System.nanoTime() - started);
    }

    private static byte[] text(String value) {
        return value.getBytes(StandardCharsets.UTF_8);
    }

    private static int answer(HttpServletRequest request, HttpServletResponse response, int status,
            byte[] body) throws IOException {
        response.setStatus(status);
        if (body.length == 0) {
            return 0;
        }
        response.setContentLength(body.length);
        if (request.getMethod().equals("HEAD")) {
            return 0;
        }
        write(response.getOutputStream(), body);
        return body.length;
    }

    /** A client that has the announced length may be gone before the stream has ended. */
    private static void write(OutputStream out, byte[] bytes) throws IOException {
        try {
            out.write(bytes);
            out.flush();
        } catch (EOFException gone) {
            return;
        }
    }

    private static int answerInPieces(HttpServletResponse response, int count) throws IOException {
        OutputStream out = response.getOutputStream();
        int sent = 0;
        for (int i = 0; i < count; i++) {
            byte[] piece = text("piece " + i + "\n");
            write(out, piece);
            sent += piece.length;
        }
        return sent;
    }

    private static void pause(long milliseconds) {
        try {
            Thread.sleep(milliseconds);
        } catch (InterruptedException interrupted) {
            Thread.currentThread().interrupt();
        }
    }

    private void record(HttpServletRequest request, int peer, int status, int received, int sent,
            long duration) throws IOException {
        String path = request.getRequestURI();
        String line = String.format("{\"id\": \"%s\", \"method\": \"%s\", \"path\": \"%s\", "
                + "\"status\": %d, \"request_bytes\": %d, \"response_bytes\": %d, "
                + "\"duration_us\": %d, \"peer_port\": %d}%n",
                path.substring(path.lastIndexOf('/') + 1), request.getMethod(), path, status,
                received, sent, duration / 1000, peer);
        log.write(text(line));
    }
}
