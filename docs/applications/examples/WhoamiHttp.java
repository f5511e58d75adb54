import java.io.IOException;
import java.net.HttpURLConnection;
import java.net.URI;
import java.nio.charset.StandardCharsets;

/** Asks a web server who we are: java WhoamiHttp.java http://HOST/. */
class WhoamiHttp {
    public static void main(String[] arguments) throws IOException {
        var connection = (HttpURLConnection) URI.create(arguments[0]).toURL().openConnection();
        System.out.println(connection.getResponseCode());
        System.out.print(new String(connection.getInputStream().readAllBytes(), StandardCharsets.UTF_8));
    }
}
