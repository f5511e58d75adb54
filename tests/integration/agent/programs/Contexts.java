import java.io.BufferedReader;
import java.io.InputStreamReader;
import org.ietf.jgss.GSSContext;
import org.ietf.jgss.GSSCredential;
import org.ietf.jgss.GSSException;
import org.ietf.jgss.GSSManager;
import org.ietf.jgss.GSSName;
import org.ietf.jgss.Oid;

/** Takes its ticket once, then makes a token for each service that is asked for, such as ldap@dc1. */
class Contexts {
    public static void main(String[] arguments) throws Exception {
        var manager = GSSManager.getInstance();
        var kerberos = new Oid("1.2.840.113554.1.2.2");
        var own = manager.createCredential(
                null, GSSCredential.INDEFINITE_LIFETIME, kerberos, GSSCredential.INITIATE_ONLY);
        System.out.println(own.getName());
        var lines = new BufferedReader(new InputStreamReader(System.in));
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            try {
                var service = manager.createName(line, GSSName.NT_HOSTBASED_SERVICE);
                var context = manager.createContext(service, kerberos, own, GSSContext.DEFAULT_LIFETIME);
                context.initSecContext(new byte[0], 0, 0);
                System.out.println("token");
            } catch (GSSException error) {
                System.out.println(error.getMessage());
            }
        }
    }
}
