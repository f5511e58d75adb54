import java.util.List;
import org.testcontainers.containers.GenericContainer;
import org.testcontainers.utility.DockerImageName;

/** Starts a container with a credential spec and prints what klist says in it. */
class Klist {
    public static void main(String[] arguments) throws Exception {
        try (GenericContainer<?> container =
                new GenericContainer<>(DockerImageName.parse("kerberos-client:latest"))
                        .withCommand("sleep", "1000")
                        .withNetworkMode("none")
                        .withCreateContainerCmdModifier(create -> create.getHostConfig()
                                .withSecurityOpts(List.of(arguments[0])))) {
            container.start();
            System.out.print(container.execInContainer("klist").getStdout());
        }
    }
}
